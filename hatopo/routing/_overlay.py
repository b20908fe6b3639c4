"""What a person knows about commands and no server says: hand-reviewed, the other half of `_table`.

Decides how each command may be repeated and which ones change their connection, and adds the commands that
the table does not have: newer ones, those of modules, of Sentinel and of Valkey. Must not know how commands
are written or sent.

A command in none of the three classes below is READ if its server calls it readonly, else NON_IDEMPOTENT: a
write may be repeated by decision only. Where arguments change the class, `_commands` has the rule.
"""

from __future__ import annotations

Names = tuple[str, ...]


def _under(container: str, subcommands: str) -> Names:
    return tuple(f"{container} {subcommand}" for subcommand in subcommands.split())


def _named(commands: str) -> Names:
    return tuple(commands.split())


# A promise for every argument: what writes or resets with some argument is not here (ACL LOG RESET).
READ: Names = (
    *_named("COMMAND ECHO INFO LASTSAVE PING ROLE TIME"),
    *_under("ACL", "CAT DRYRUN GENPASS GETUSER HELP LIST USERS WHOAMI"),
    *_under("CLIENT", "GETNAME GETREDIR HELP ID INFO LIST TRACKINGINFO"),
    *_under("CLUSTER", "COUNT-FAILURE-REPORTS COUNTKEYSINSLOT GETKEYSINSLOT GETSLOTMIGRATIONS HELP INFO"),
    *_under("CLUSTER", "KEYSLOT LINKS MYID MYSHARDID NODES REPLICAS SHARDS SLAVES SLOTS SLOT-STATS"),
    *_under("COMMAND", "COUNT DOCS GETKEYS GETKEYSANDFLAGS HELP INFO LIST"),
    *_under("COMMANDLOG", "GET HELP LEN"),
    *_under("CONFIG", "GET HELP"),
    *_under("DEBUG", "OBJECT"),
    *_under("FUNCTION", "DUMP HELP LIST STATS"),
    *_under("HOTKEYS", "GET HELP"),
    *_under("LATENCY", "DOCTOR GRAPH HELP HISTOGRAM HISTORY LATEST"),
    *_under("MEMORY", "DOCTOR HELP MALLOC-STATS STATS"),
    *_under("MODULE", "HELP LIST"),
    *_under("OBJECT", "HELP"),
    *_under("PUBSUB", "CHANNELS HELP NUMPAT NUMSUB SHARDCHANNELS SHARDNUMSUB"),
    *_under("SCRIPT", "EXISTS HELP SHOW"),
    *_under("SENTINEL", "CKQUORUM GET-MASTER-ADDR-BY-NAME GET-PRIMARY-ADDR-BY-NAME HELP INFO-CACHE MASTER"),
    *_under("SENTINEL", "MASTERS MYID PENDING-SCRIPTS PRIMARIES PRIMARY REPLICAS SENTINELS SLAVES"),
    *_under("SLOWLOG", "GET HELP LEN"),
    *_under("XGROUP", "HELP"),
    *_under("XINFO", "HELP"),
)

REPEATABLE: Names = (
    # A value takes the place of whatever was there; a relative expiry only begins later.
    *_named("SET MSET SETEX PSETEX HMSET HSETEX MSETEX EXPIREAT PEXPIREAT HEXPIREAT HPEXPIREAT"),
    *_named("JSON.SET JSON.MSET JSON.MERGE VSETATTR TS.ALTER FT.ALIASUPDATE FT.SYNUPDATE"),
    # Settings of a node. No resets of statistics: like FLUSHALL, they lose what came in between.
    *_under("ACL", "LOAD SAVE"),
    *_under("CONFIG", "REWRITE SET"),
    *_under("FT.CONFIG", "SET"),
    *_under("SENTINEL", "CONFIG FLUSHCONFIG SET"),
    *("CLIENT UNPAUSE", "CLUSTER SAVECONFIG", "MEMORY PURGE", "SCRIPT LOAD"),
    # State of the connection that one command alone makes whole. Not what accumulates (MULTI, WATCH,
    # SUBSCRIBE, CLIENT TRACKING ...): the rest is lost with the connection, and a repeat would hide the loss.
    *_named("ASKING AUTH HELLO MONITOR QUIT READONLY READWRITE RESET SELECT UNWATCH"),
    *_under("CLIENT", "CAPA IMPORT-SOURCE NO-EVICT NO-TOUCH SETINFO SETNAME"),
)

STATE_STABLE: Names = (
    # The second reply says "nothing changed", as if the first application had never been.
    *_named("DEL UNLINK DELEX SADD SREM HSET HDEL ZADD ZREM ZREMRANGEBYLEX ZREMRANGEBYSCORE PFADD GEOADD"),
    *_named("PERSIST HPERSIST XACK XDEL XACKDEL XDELEX XTRIM ARSET ARMSET ARDEL ARDELRANGE VADD VREM"),
    *_named("JSON.DEL JSON.FORGET JSON.CLEAR BF.ADD BF.MADD BF.INSERT TS.DEL"),
    *_named("FT.DEL FT.DICTADD FT.DICTDEL FT.SUGADD FT.SUGDEL"),
    "ACL DELUSER",
    # The second reply tells of the state that the first application left.
    *_named("EXPIRE PEXPIRE HEXPIRE HPEXPIRE SETBIT SETRANGE"),
    # The second reply is an error: it is there already, or no longer.
    *_under("XGROUP", "CREATE CREATECONSUMER DELCONSUMER DESTROY"),
    *_under("FUNCTION", "DELETE LOAD"),
    *_named("BF.RESERVE CF.RESERVE CMS.INITBYDIM CMS.INITBYPROB TDIGEST.CREATE TOPK.RESERVE"),
    *_named("TS.CREATE TS.CREATERULE TS.DELETERULE FT.CREATE FT.ALTER FT.DROPINDEX FT.ALIASADD FT.ALIASDEL"),
    *_under("FT.CURSOR", "DEL"),
    *_under("SENTINEL", "MONITOR REMOVE"),
    *_under("CLUSTER", "ADDSLOTS ADDSLOTSRANGE DELSLOTS DELSLOTSRANGE"),
    # Computed again from its sources as they are now, which is what the same call a moment later would give.
    # Not so where the destination is a source as well: there `_commands` says no.
    *_named("BITOP PFMERGE SDIFFSTORE SINTERSTORE SUNIONSTORE ZDIFFSTORE ZINTERSTORE ZUNIONSTORE"),
    *_named("ZRANGESTORE GEOSEARCHSTORE CMS.MERGE"),
    # Changes nothing, but asks about the writes of its own connection: on a fresh one, which has written
    # nothing, every replica counts as up to date, and the repeat confirms writes that no replica has.
    *_named("WAIT WAITAOF"),
)

STATEFUL: Names = (
    *_named("ASKING AUTH DISCARD EXEC HELLO MONITOR MULTI PSYNC QUIT READONLY READWRITE REPLCONF RESET"),
    *_named("SELECT SYNC UNWATCH WATCH"),
    *_named("PSUBSCRIBE PUNSUBSCRIBE SSUBSCRIBE SUBSCRIBE SUNSUBSCRIBE UNSUBSCRIBE"),
    *_under("CLIENT", "CACHING CAPA IMPORT-SOURCE NO-EVICT NO-TOUCH REPLY SETINFO SETNAME TRACKING"),
    *_under("SCRIPT", "DEBUG"),
    # HIMPORT SET changes nothing, but it means what HIMPORT PREPARE said on the same connection.
    *_under("HIMPORT", "DISCARD DISCARDALL PREPARE SET"),
)

# Flagged readonly, and yet no business of a replica: cursors belong to the node that gave them, access statistics and
# settings are each node's own, and TOUCH keeps a key alive only where keys are evicted: on the master.
OF_ONE_NODE: frozenset[str] = frozenset(
    (
        *_named("SCAN HSCAN SSCAN ZSCAN ARSCAN BF.SCANDUMP CF.SCANDUMP TOUCH LOLWUT"),
        *_under("OBJECT", "FREQ IDLETIME"),
        *_under("FT.CONFIG", "GET HELP"),
    )
)

# Flagged readonly, but with a cursor among their options (WITHCURSOR): only the arguments tell.
MAY_TAKE_A_CURSOR: Names = _named("FT.AGGREGATE FT.HYBRID FT.PROFILE")

# Beyond those that the table marks: Redis 7.0 does not mark WAIT, and modules mark nothing.
BLOCKING: Names = _named("BLMOVEM TS.READ WAIT WAITAOF")

# Rows like those of the table (flags, first key, last key, key step), each for several commands.
MORE_COMMANDS: tuple[tuple[Names, str, int, int, int], ...] = (
    # Redis 6 only.
    (_named("STRALGO"), "rm", 0, 0, 0),
    # Redis 7.2 to 8.10.
    (_named("DIGEST HEXPIRETIME HPEXPIRETIME HPTTL HTTL"), "r", 1, 1, 1),
    (_named("DELEX HEXPIRE HEXPIREAT HGETDEL HGETEX HPERSIST HPEXPIRE HPEXPIREAT HSETEX"), "", 1, 1, 1),
    (_named("INCREX XACKDEL XCFGSET XDELEX XNACK"), "", 1, 1, 1),
    (_named("BLMOVEM LMOVEM"), "", 1, 2, 1),
    (_named("SDIFFCARD SUNIONCARD"), "rm", 0, 0, 0),
    (_named("MSETEX"), "m", 0, 0, 0),
    (_named("SFLUSH WAITAOF"), "", 0, 0, 0),
    (_named("ARCOUNT ARGET ARGETRANGE ARGREP ARINFO ARLASTITEMS ARLEN ARMGET ARNEXT"), "r", 1, 1, 1),
    (_named("AROP ARSCAN"), "r", 1, 1, 1),
    (_named("ARDEL ARDELRANGE ARINSERT ARMSET ARRING ARSEEK ARSET"), "", 1, 1, 1),
    (_named("VCARD VDIM VEMB VGETATTR VINFO VISMEMBER VLINKS VRANDMEMBER VRANGE VSIM"), "r", 1, 1, 1),
    (_named("VADD VREM VSETATTR"), "", 1, 1, 1),
    (_under("CLIENT", "NO-TOUCH SETINFO"), "", 0, 0, 0),
    (_under("CLUSTER", "MIGRATION MYSHARDID SLOT-STATS"), "", 0, 0, 0),
    (_under("HIMPORT", "DISCARD DISCARDALL PREPARE"), "", 0, 0, 0),
    (_under("HIMPORT", "SET"), "", 2, 2, 1),
    (_under("HOTKEYS", "GET HELP RESET START STOP"), "", 0, 0, 0),
    # COMMAND knows no subcommands of DEBUG; this one only looks.
    (_under("DEBUG", "OBJECT"), "", 2, 2, 1),
    # Valkey.
    (_named("DELIFEQ"), "", 1, 1, 1),
    (_under("CLIENT", "CAPA IMPORT-SOURCE"), "", 0, 0, 0),
    (_under("CLUSTER", "CANCELSLOTMIGRATIONS GETSLOTMIGRATIONS MIGRATESLOTS"), "", 0, 0, 0),
    (_under("COMMANDLOG", "GET HELP LEN RESET"), "", 0, 0, 0),
    (_under("SCRIPT", "SHOW"), "", 0, 0, 0),
    # Sentinel, of Redis and of Valkey.
    (_under("SENTINEL", "CKQUORUM CONFIG DEBUG FAILOVER FLUSHCONFIG GET-MASTER-ADDR-BY-NAME"), "", 0, 0, 0),
    (_under("SENTINEL", "GET-PRIMARY-ADDR-BY-NAME HELP INFO-CACHE IS-MASTER-DOWN-BY-ADDR"), "", 0, 0, 0),
    (_under("SENTINEL", "MASTER MASTERS MONITOR MYID PENDING-SCRIPTS PRIMARIES PRIMARY REMOVE"), "", 0, 0, 0),
    (_under("SENTINEL", "REPLICAS RESET SENTINELS SET SIMULATE-FAILURE SLAVES"), "", 0, 0, 0),
    # RedisJSON.
    (_named("JSON.ARRINDEX JSON.ARRLEN JSON.GET JSON.OBJKEYS JSON.OBJLEN JSON.RESP"), "r", 1, 1, 1),
    (_named("JSON.STRLEN JSON.TYPE"), "r", 1, 1, 1),
    (_named("JSON.MGET"), "r", 1, -2, 1),
    (_named("JSON.DEBUG"), "r", 2, 2, 1),
    (_named("JSON.ARRAPPEND JSON.ARRINSERT JSON.ARRPOP JSON.ARRTRIM JSON.CLEAR JSON.DEL"), "", 1, 1, 1),
    (_named("JSON.FORGET JSON.MERGE JSON.NUMINCRBY JSON.NUMMULTBY JSON.SET JSON.STRAPPEND"), "", 1, 1, 1),
    (_named("JSON.TOGGLE"), "", 1, 1, 1),
    (_named("JSON.MSET"), "", 1, -1, 3),
    # RedisTimeSeries.
    (_named("TS.GET TS.INFO TS.RANGE TS.READ TS.REVRANGE"), "r", 1, 1, 1),
    (_named("TS.MGET TS.MRANGE TS.MREVRANGE TS.QUERYINDEX TS.QUERYLABELS"), "r", 0, 0, 0),
    (_named("TS.NRANGE TS.NREVRANGE"), "rm", 0, 0, 0),
    (_named("TS.ADD TS.ALTER TS.CREATE TS.DECRBY TS.DEL TS.INCRBY"), "", 1, 1, 1),
    (_named("TS.CREATERULE TS.DELETERULE"), "", 1, 2, 1),
    (_named("TS.MADD"), "", 1, -1, 3),
    # RediSearch. An index is no key. A cursor lives on the node that made it: no replica may answer for it.
    (_named("FT._LIST FT.AGGREGATE FT.ALIASLIST FT.DICTDUMP FT.EXPLAIN FT.EXPLAINCLI FT.GET"), "r", 0, 0, 0),
    (_named("FT.HYBRID FT.INFO FT.MGET FT.PROFILE FT.SEARCH FT.SPELLCHECK FT.SYNDUMP"), "r", 0, 0, 0),
    (_named("FT.TAGVALS"), "r", 0, 0, 0),
    (_named("FT.ADD FT.ADDHASH FT.ALIASADD FT.ALIASDEL FT.ALIASUPDATE FT.ALTER FT.CREATE"), "", 0, 0, 0),
    (_named("FT.DEL FT.DICTADD FT.DICTDEL FT.DROP FT.DROPINDEX FT.SYNUPDATE"), "", 0, 0, 0),
    (_named("FT.SUGGET FT.SUGLEN"), "r", 1, 1, 1),
    (_named("FT.SUGADD FT.SUGDEL"), "", 1, 1, 1),
    (_under("FT.CONFIG", "GET HELP"), "r", 0, 0, 0),
    (_under("FT.CONFIG", "SET"), "", 0, 0, 0),
    (_under("FT.CURSOR", "DEL READ"), "", 0, 0, 0),
    # RedisBloom.
    (_named("BF.CARD BF.EXISTS BF.INFO BF.MEXISTS BF.SCANDUMP"), "r", 1, 1, 1),
    (_named("BF.ADD BF.INSERT BF.LOADCHUNK BF.MADD BF.RESERVE"), "", 1, 1, 1),
    (_named("CF.COUNT CF.EXISTS CF.INFO CF.MEXISTS CF.SCANDUMP"), "r", 1, 1, 1),
    (_named("CF.ADD CF.ADDNX CF.COMPACT CF.DEL CF.INSERT CF.INSERTNX CF.LOADCHUNK CF.RESERVE"), "", 1, 1, 1),
    (_named("CMS.INFO CMS.QUERY"), "r", 1, 1, 1),
    (_named("CMS.INCRBY CMS.INITBYDIM CMS.INITBYPROB"), "", 1, 1, 1),
    (_named("CMS.MERGE TDIGEST.MERGE"), "m", 1, 1, 1),
    (_named("TDIGEST.BYRANK TDIGEST.BYREVRANK TDIGEST.CDF TDIGEST.INFO TDIGEST.MAX"), "r", 1, 1, 1),
    (_named("TDIGEST.MIN TDIGEST.QUANTILE TDIGEST.RANK TDIGEST.REVRANK TDIGEST.TRIMMED_MEAN"), "r", 1, 1, 1),
    (_named("TDIGEST.ADD TDIGEST.CREATE TDIGEST.RESET"), "", 1, 1, 1),
    (_named("TOPK.COUNT TOPK.INFO TOPK.LIST TOPK.QUERY"), "r", 1, 1, 1),
    (_named("TOPK.ADD TOPK.INCRBY TOPK.RESERVE"), "", 1, 1, 1),
)
