"""A model as a JSON service: ``create_app(unival.load(checkpoint))`` is an ASGI application."""

from unival.serve.limits import ServiceLimits

__all__ = ["ServiceLimits", "create_app"]


def __getattr__(name: str) -> object:
    if name == "create_app":  # FastAPI is an extra and slow to import
        from unival.serve.app import create_app

        return create_app
    raise AttributeError(f"module 'unival.serve' has no attribute '{name}'")
