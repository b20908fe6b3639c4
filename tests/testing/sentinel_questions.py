"""What sentinels are asked, and how their answers are told without times, ids and ports.

Run as a program (`python -m tests.testing.sentinel_questions`), it writes down what a real sentinel answers.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from hatopo.testing import RealSentinelDeployment, SentinelDeployment
from tests.testing.wire import Connection

Deployment = SentinelDeployment | RealSentinelDeployment
RECORDED = Path(__file__).parent / "recorded" / "sentinel_answers.json"

QUESTIONS = """
SENTINEL MASTERS
SENTINEL MASTER mymaster
SENTINEL MASTER nobody
SENTINEL MASTER
SENTINEL MASTER mymaster mymaster
SENTINEL REPLICAS mymaster
SENTINEL SLAVES mymaster
SENTINEL REPLICAS nobody
SENTINEL SENTINELS mymaster
SENTINEL SENTINELS nobody
SENTINEL GET-MASTER-ADDR-BY-NAME mymaster
SENTINEL GET-MASTER-ADDR-BY-NAME nobody
sentinel get-master-addr-by-name
SENTINEL CKQUORUM mymaster
SENTINEL CKQUORUM nobody
SENTINEL MYID
SENTINEL MYID 1
SENTINEL PENDING-SCRIPTS
SENTINEL FLUSHCONFIG
SENTINEL FLUSHCONFIG x
SENTINEL HELP x
SENTINEL NOTHING
SENTINEL
SENTINEL INFO-CACHE nobody
SENTINEL INFO-CACHE
SENTINEL FAILOVER nobody
SENTINEL RESET nobody*
SENTINEL REMOVE nobody
SENTINEL SIMULATE-FAILURE
SENTINEL SIMULATE-FAILURE help
SENTINEL SIMULATE-FAILURE nothing
SENTINEL SIMULATE-FAILURE crash-after-election CRASH-AFTER-PROMOTION
INFO sentinel
SENTINEL SIMULATE-FAILURE help crash-after-election
INFO sentinel
INFO nothing
SENTINEL DEBUG
SENTINEL DEBUG info-period
SENTINEL DEBUG nothing 1
SENTINEL DEBUG info-period x
SENTINEL DEBUG Info-Period 0
SENTINEL DEBUG ask-period 1000 TILT-trigger 2000
SENTINEL CONFIG
SENTINEL CONFIG GET
SENTINEL CONFIG GET *
SENTINEL CONFIG GET ANNOUNCE-*
SENTINEL CONFIG GET nothing
SENTINEL CONFIG GET a b
SENTINEL CONFIG SET nothing 1
SENTINEL CONFIG SET announce-port x
SENTINEL CONFIG SET announce-port 70000
SENTINEL CONFIG SET resolve-hostnames maybe
SENTINEL CONFIG SET announce-hostnames no
SENTINEL CONFIG SET announce-port
SENTINEL SET
SENTINEL SET mymaster
SENTINEL SET mymaster quorum
SENTINEL SET nobody quorum 1
SENTINEL SET mymaster quorum 0
SENTINEL SET mymaster quorum x
SENTINEL SET mymaster Quorum 2
SENTINEL SET mymaster nothing 1
SENTINEL SET mymaster quorum 2 parallel-syncs
SENTINEL SET mymaster down-after-milliseconds -1
SENTINEL SET mymaster rename-command a
SENTINEL SET mymaster notification-script /bin/true
SENTINEL SET mymaster master-reboot-down-after-period 0
SENTINEL SET mymaster master-reboot-down-after-period -1
SENTINEL MONITOR x 127.0.0.1 1
SENTINEL MONITOR x 127.0.0.1 70000 2
SENTINEL MONITOR x 127.0.0.1 y 2
SENTINEL MONITOR x 127.0.0.1 y z
SENTINEL MONITOR x localhost 1 2
SENTINEL MONITOR x 127.0.0.1 1 0
SENTINEL MONITOR mymaster 127.0.0.1 1 1
SENTINEL IS-MASTER-DOWN-BY-ADDR 127.0.0.1 1 0 *
SENTINEL IS-MASTER-DOWN-BY-ADDR 127.0.0.1 x 0 *
SENTINEL IS-MASTER-DOWN-BY-ADDR 127.0.0.1 1 x *
SENTINEL IS-MASTER-DOWN-BY-ADDR 127.0.0.1 1 0
ROLE
ROLE x
PUBLISH __sentinel__:hello nothing
PUBLISH other nothing
PING
PING a
COMMAND COUNT
SUBSCRIBE +switch-master
UNSUBSCRIBE
GET a
MULTI
CONFIG GET port
SELECT 0
TIME
SSUBSCRIBE a
SHUTDOWN sometimes
SHUTDOWN ABORT
"""

CHANGES = """
SENTINEL MONITOR second 127.0.0.1 1 3
SENTINEL MASTER second
SENTINEL SET second auth-pass secret down-after-milliseconds 5
SENTINEL CKQUORUM second
SENTINEL RESET sec*
SENTINEL REMOVE second
ROLE
SENTINEL FAILOVER mymaster
SENTINEL FAILOVER mymaster
"""

TIMES = (
    "last-ping-sent|last-ok-ping-reply|last-ping-reply|info-refresh|role-reported-time|last-hello-message|"
    "slave-repl-offset|link-pending-commands|s-down-time"
)


def spelled(reply: str) -> str:
    """A reply without times, ids and ports."""
    reply = re.sub(rf'\$"({TIMES})" \$"\d+"', r'$"\1" $"TIME"', reply)
    reply = re.sub(r"[0-9a-f]{40}", "ID", reply)
    return re.sub(r"\b(\d{5}|1[1-9]\d{3})\b", lambda found: found[0] if found[0] in WELL_KNOWN else "PORT", reply)


WELL_KNOWN = {"10000", "15000", "30000", "60000", "70000"}
"""Numbers of five digits that are no ports."""


def answers(deployment: Deployment, questions: str, protocol: int) -> list[tuple[str, str]]:
    connection = Connection.to(deployment.sentinels[0], protocol)
    try:
        return [
            (question, spelled(str(connection.ask(*question.encode().split(b" ")))))
            for question in questions.strip().splitlines()
        ]
    finally:
        connection.close()


def ask_all(deployment: Deployment) -> dict[str, list[tuple[str, str]]]:
    """Questions and answers under both protocols, and then the changes."""
    return {
        "RESP2": answers(deployment, QUESTIONS, 2),
        "RESP3": answers(deployment, QUESTIONS, 3),
        "changes": answers(deployment, CHANGES, 2),
    }


def recorded() -> dict[str, list[tuple[str, str]]]:
    """What a real sentinel has answered."""
    found = json.loads(RECORDED.read_text())
    return {kind: [(question, answer) for question, answer in pairs] for kind, pairs in found.items()}


if __name__ == "__main__":
    with RealSentinelDeployment(2, 3, parallel_syncs=1, down_after=3.0) as real:
        RECORDED.write_text(json.dumps(ask_all(real), indent=1) + "\n")
