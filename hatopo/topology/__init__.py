"""What nodes are there: the model, the replies it is read from, discovery, and the view in force."""

from hatopo.topology._discover import Answer, Discovery, Listen, NotFound, discover_master
from hatopo.topology._model import Node, Shard, Topology, one_node
from hatopo.topology._parse import MasterReport, parse_master, parse_names
from hatopo.topology._view import TopologyView

__all__ = [
    "Answer",
    "Discovery",
    "Listen",
    "MasterReport",
    "Node",
    "NotFound",
    "Shard",
    "Topology",
    "TopologyView",
    "discover_master",
    "one_node",
    "parse_master",
    "parse_names",
]
