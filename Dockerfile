# Two targets: `service` without torch, `worker` with it (PyTorch's CUDA build; runs on the CPU too).
FROM python:3.12-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN useradd --create-home --uid 10001 triptych \
    && install --directory --owner=triptych --group=triptych /data
WORKDIR /app
ENV TRIPTYCH_DATA_DIR=/data
VOLUME /data

FROM base AS service
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY models ./models
COPY worker ./worker
COPY service ./service
COPY triptych ./triptych
# the lock constrains: what is installed are the dependencies of the HTTP side alone
RUN pip install --constraint requirements.lock ".[tracing]"
USER triptych
ENV TRIPTYCH_HOST=0.0.0.0
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
CMD ["triptych", "api"]

FROM base AS worker
# torch.compile builds its launchers with it; what it compiled outlives the container
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
ENV TORCHINDUCTOR_CACHE_DIR=/data/compiled
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY models ./models
COPY worker ./worker
COPY service ./service
COPY triptych ./triptych
RUN pip install --constraint requirements.lock ".[worker,tracing]"
USER triptych
ENV TRIPTYCH_METRICS_HOST=0.0.0.0 TRIPTYCH_METRICS_PORT=9100
EXPOSE 9100
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9100/metrics', timeout=2)"]
ENTRYPOINT ["triptych", "worker"]
