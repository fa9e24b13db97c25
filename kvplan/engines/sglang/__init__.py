"""SGLang's policy: ``engine(version)``; the parts are in the modules beside, one idea each."""

from kvplan.engines.sglang.policy import SglangEngine, engine

__all__ = ["SglangEngine", "engine"]
