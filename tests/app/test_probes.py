"""Where a network looks on a few pictures, and that it is trained as before afterwards."""

import json
from pathlib import Path

import torch
from PIL import Image

from app.probes import save_maps
from l2d.checkpoint import ModelCard
from l2d.data.images import Index
from l2d.model import create_model


def test_a_look_leaves_frozen_parts_frozen(tmp_path: Path):
    Image.new("RGB", (40, 30), "white").save(tmp_path / "0.png")
    index = Index([tmp_path / "0.png"], torch.tensor([[1.0, 0.0]]), ("dark", "light"))
    model = create_model("test_resnet", 2, image_size=32, width=16, feedforward=16).train()
    frozen = model.backbone.eval()
    card = ModelCard("student", "Student", "student", "vanilla", "test_resnet", index.labels, 32, width=16, feedforward=16)
    save_maps(tmp_path, "0001", model, card, index, [0])
    assert (model.training, model.head.training) == (True, True)
    assert not any(module.training for module in frozen.modules())
    ((shown,),) = json.loads((tmp_path / "0001.json").read_text())["pictures"]
    assert shown["label"] == "dark"
