# docker build -t model-gateway .                          CPU
# docker build -t model-gateway:gpu --build-arg TARGET=gpu .   CUDA; run it with --gpus all
# docker build --build-arg COMPILE=0 .                     pure Python: without mypyc's minutes, nor its speed
# docker run -p 8000-8002:8000-8002 -v "$PWD/models:/models:ro" model-gateway
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
ARG TARGET=cpu
ARG COMPILE=1
WORKDIR /src
RUN if [ "$COMPILE" != 0 ]; then \
        apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*; \
    fi
# Dependencies first: this layer is rebuilt only when the lock changes.
COPY requirements/build.txt requirements/${TARGET}.txt requirements/
RUN python -m venv /opt/build && python -m venv /opt/gateway \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes -r requirements/build.txt \
    && /opt/gateway/bin/pip install --no-cache-dir --require-hashes -r requirements/${TARGET}.txt
COPY pyproject.toml hatch_build.py LICENSE README.md ./
COPY src src
# The compiler checks types against the dependencies: the .pth file shows it those of the environment that will run.
RUN ls -d /opt/gateway/lib/python*/site-packages > "$(ls -d /opt/build/lib/python*/site-packages)/gateway.pth" \
    && GATEWAY_COMPILE=$COMPILE \
        /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation -w /wheels . \
    && /opt/gateway/bin/pip install --no-cache-dir --no-deps --no-index /wheels/*.whl

FROM python:${PYTHON}-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home gateway
COPY --from=build /opt/gateway /opt/gateway
# The CUDA libraries of the gpu target come from the lock; the driver comes from the host.
ENV PATH=/opt/gateway/bin:$PATH PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD ["python", "-c", "\
import http.client, sys; \
connection = http.client.HTTPConnection('127.0.0.1', 8000, timeout=2); \
connection.request('GET', '/v2/health/ready'); \
sys.exit(connection.getresponse().status != 200)"]
# Administration (8003) can change what is served: it is not exposed here.
ENTRYPOINT ["gateway"]
CMD ["serve", "/models", "--host", "0.0.0.0"]
