"""Trains, evaluates and stores image classifiers of a chosen depth, in plain PyTorch.

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

Each module covers one subject with a few public names. The package imports none
of them, so that these modules load without torch: `spec`, `schedule`,
`early_stopping`, `images`, `datasets` and `checkpoint_files`.

- `spec`: what to train, and which fields have invalid values.
- `architecture`: what determines a network's shape.
- `network`: the network of a chosen depth, with or without batch norm and residual
  connections.
- `initialization`: how the initial weights are drawn.
- `images`: image files to pixels, and pixels to image files.
- `datasets`: images with labels, decoded once and shared by all processes.
- `evaluation`: loss, accuracy, and the predicted class of each image.
- `metrics`: the results of an epoch.
- `training`: the training loop.
- `optimizers`: the rules that update the weights.
- `schedule`: the learning rate of each step.
- `augmentation`: random flips and shifts of training images.
- `early_stopping`: when training ends before its last epoch.
- `diagnosis`: activations and gradients, block by block.
- `batches`: splits on a device, and pixels to network inputs.
- `checkpoints`: an epoch's weights, predictions and optimizer state as files.
- `predictions`: the predicted class of each image, as a file.
- `checkpoint_files`: the parts of a checkpoint that are readable without torch.
- `export`: a trained network as an ONNX model.
- `graphs`: CUDA graphs of functions, where a GPU can capture them.
"""
