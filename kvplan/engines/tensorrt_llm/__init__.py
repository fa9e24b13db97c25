"""TensorRT-LLM's policy: ``engine(version)``; the parts are in the modules beside."""

from kvplan.engines.tensorrt_llm.policy import TensorRtLlmEngine, engine

__all__ = ["TensorRtLlmEngine", "engine"]
