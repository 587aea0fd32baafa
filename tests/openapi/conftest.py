"""The fixtures of the service's tests: the real app, its client and its worker."""

from tests.service.conftest import data_dir, http, redis, service_url, settings, worker

__all__ = ["data_dir", "http", "redis", "service_url", "settings", "worker"]
