"""ImageNet weights: what timm knows of a network's, and whether the hub that it fetches them from can give them."""

from typing import Any

from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.utils import httpx

# Names of a network's weights there, the one that timm tries first in front.
FILES = ("model.safetensors", "pytorch_model.bin")
# So long a connection may take. A hub that is reached may take its time for everything else.
CONNECT_SECONDS = 5.0


def find_config(backbone: str) -> Any:
    """timm's configuration of the weights that a network's name stands for: their source, licence and scaling of pixels, or None."""
    # Here, not above: see `l2d.model`.
    import timm

    return timm.get_pretrained_cfg(backbone)


def check_pretrained(backbone: str) -> None:
    """Refuse a timm network whose ImageNet weights lie in no cache, while nobody can connect to the hub.

    The hub's own client would find that out as well, after trying for most of a minute. Whatever a hub answers, or how late, is left
    to that client.

    Raises:
        ValueError: saying what to do.
    """
    config = find_config(backbone)
    source = config.hf_hub_id if config is not None else None
    if source is None or any(isinstance(try_to_load_from_cache(source, name), str) for name in FILES):
        return
    try:
        get_hf_file_metadata(hf_hub_url(source, FILES[0]), timeout=CONNECT_SECONDS)
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
        raise ValueError(
            f"No ImageNet weights for {backbone}: none are kept on this machine, and the hub cannot be reached ({error}); give them by "
            "--init, or train without them (--no-pretrained)."
        ) from error
    except (httpx.HTTPError, OSError):
        pass
