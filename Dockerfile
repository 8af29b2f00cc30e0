# docker build -t l2d . && docker run -p 7860:7860 l2d
FROM python:3.11-slim

# Address of an index with CPU-only wheels of torch and torchvision: without it the image holds the CUDA libraries too (several GB).
ARG TORCH_INDEX=

WORKDIR /srv/l2d

# The dependencies change rarely: a layer of their own, from wheels alone, so that no compiler is needed.
COPY pyproject.toml constraints.txt ./
RUN python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; print(*p["dependencies"], *p["optional-dependencies"]["app"], sep="\n")' >/tmp/requirements.txt \
    && pip install --no-cache-dir --only-binary :all: ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
        --constraint constraints.txt --requirement /tmp/requirements.txt \
    && rm /tmp/requirements.txt

RUN useradd --system --uid 10001 --no-create-home l2d

COPY checkpoints checkpoints
COPY README.md LICENSE ./
COPY l2d l2d
COPY app app
# In place: the folder of checkpoints is found beside the packages.
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable .

# Nothing is fetched or reported at run time; caches go where a read-only container has a writable place.
ENV L2D_HOST=0.0.0.0 \
    L2D_PORT=7860 \
    HF_HUB_OFFLINE=1 \
    GRADIO_ANALYTICS_ENABLED=False \
    GRADIO_TEMP_DIR=/tmp/gradio \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

USER l2d
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=90s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ['L2D_PORT']}/readyz\", timeout=4)"]
CMD ["python", "-m", "app"]
