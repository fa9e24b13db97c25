"""vLLM's policy: ``engine(version)``; the parts are in the modules beside, one idea each."""

from kvplan.engines.vllm.policy import VllmEngine, engine

__all__ = ["VllmEngine", "engine"]
