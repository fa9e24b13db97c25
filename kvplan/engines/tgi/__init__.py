"""text-generation-inference's policy: ``engine(version)``; the parts are in the modules beside."""

from kvplan.engines.tgi.policy import TgiEngine, engine

__all__ = ["TgiEngine", "engine"]
