"""Training, evaluating and keeping image classifiers of a chosen depth, in plain PyTorch.

Useful without any server:

    from pathlib import Path

    import torch
    from leadline.models.datasets import open_dataset
    from leadline.models.spec import TrainingSpec
    from leadline.models.training import Trainer

    dataset = open_dataset("synthetic", Path("cache"))
    trainer = Trainer(TrainingSpec(blocks=4), dataset, device=torch.device("cpu"))
    for epoch in range(1, 6):
        print(trainer.train_epoch(epoch).metrics)

Each module is a subject with a few public names; the package imports none of
them, so that those that need no torch stay light: `spec`, `schedule`,
`early_stopping`, `images`, `datasets` and `checkpoint_files`.

- `spec`: what to train, and what is wrong with a wish to train.
- `architecture`: what determines a network's shape.
- `network`: the network of a chosen depth, with or without batch norm and residual
  connections.
- `initialization`: how its weights are drawn before the first step.
- `images`: image files to pixels, and pixels to image files.
- `datasets`: images with labels, decoded once and shared by all processes.
- `evaluation`: how right a network is, image by image.
- `metrics`: what an epoch came to.
- `training`: the loop, epoch by epoch.
- `optimizers`: the step that follows from gradients.
- `schedule`: how the step size goes from step to step.
- `augmentation`: how training images are varied from epoch to epoch.
- `early_stopping`: when training ends before its last epoch.
- `diagnosis`: how activations and gradients pass a network, block by block.
- `batches`: splits on a device, and pixels to what networks take.
- `checkpoints`: an epoch's weights, predictions and optimizer state as files.
- `predictions`: what each image was taken for, as a file.
- `checkpoint_files`: what of these files can be read without torch.
- `export`: a trained network as an ONNX model.
- `graphs`: functions whose kernels a GPU launches as one graph, where it can.
"""
