# docker build -t l2d . && docker run -p 7860:7860 l2d

FROM python:3.11-slim AS requirements
COPY pyproject.toml .
RUN python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; print(*p["dependencies"], *p["optional-dependencies"]["app"], sep="\n")' >/requirements.txt

FROM python:3.11-slim

# Address of an index with CPU-only wheels of torch and torchvision: without it the image holds the CUDA libraries too (several GB).
ARG TORCH_INDEX=

# What changes rarely comes first: installed again only if a dependency changes. Wheels alone, so that no compiler is needed.
COPY --from=requirements /requirements.txt /tmp/
COPY constraints.txt /tmp/
RUN pip install --no-cache-dir --only-binary :all: ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
    --constraint /tmp/constraints.txt --requirement /tmp/requirements.txt

# /state is what jobs write, the one place to keep; /data holds data sets that jobs may name.
RUN useradd --system --uid 10001 --no-create-home l2d && install --directory --owner=l2d /state /data

WORKDIR /srv/l2d
COPY pyproject.toml README.md LICENSE ./
COPY checkpoints checkpoints
COPY l2d l2d
COPY app app
# In place: the folder of checkpoints is found beside the packages.
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable .

# Nothing is fetched or reported at run time; caches go where a read-only container has a writable place.
ENV L2D_HOST=0.0.0.0 \
    L2D_PORT=7860 \
    L2D_STATE=/state \
    L2D_DATA=/data \
    L2D_CACHE=/state/cache \
    L2D_LOG=json \
    HF_HUB_OFFLINE=1 \
    GRADIO_ANALYTICS_ENABLED=False \
    GRADIO_TEMP_DIR=/tmp/gradio \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

USER l2d
VOLUME /state
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=90s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ['L2D_PORT']}/readyz\", timeout=4)"]
CMD ["python", "-m", "app"]
