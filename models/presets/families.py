"""The backbone classes and where they are defined. Free of torch.

They lie above: a class is imported when a preset asks for it.
"""

FAMILIES = {
    "FNetBackbone": "models.fnet.backbone",
    "FluxBackbone": "models.flux.backbone",
    "ViTBackbone": "models.vit.backbone",
}
