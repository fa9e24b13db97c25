"""LMDeploy's policy: ``engine(version)``; the parts are in the modules beside."""

from kvplan.engines.lmdeploy.policy import LmdeployEngine, engine

__all__ = ["LmdeployEngine", "engine"]
