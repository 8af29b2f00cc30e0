"""Multi-label knowledge distillation: networks, losses, data, training, metrics and maps.

Begin with `l2d.runs.execute`, which trains as a `Plan` and a `l2d.recipe.Recipe` say and leaves a checkpoint folder;
`l2d.checkpoint.load_checkpoint` reads one, `l2d.evaluate` scores and predicts, `l2d.cam.label_maps` shows where a network looks.
`l2d.losses.LOSSES` holds the losses, for any networks that give `l2d.outputs.Outputs`; `l2d.metrics` scores any probabilities.
"""
