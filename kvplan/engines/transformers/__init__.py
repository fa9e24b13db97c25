"""transformers' policy: ``engine(version)``; the parts are in the modules beside, one idea each."""

from kvplan.engines.transformers.policy import TransformersEngine, engine

__all__ = ["TransformersEngine", "engine"]
