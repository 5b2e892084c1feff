import numpy as np
import pytest
import torch
from torch import Tensor, nn

from leadline.models.batches import DeviceSplit
from leadline.models.datasets import Dataset
from leadline.models.engine import TorchEngine
from leadline.models.evaluation import classify, evaluate
from leadline.models.network import Architecture, BlockNetwork


@pytest.fixture
def network() -> BlockNetwork:
    """A network whose batch statistics differ from its running ones."""
    torch.manual_seed(1)
    network = BlockNetwork(Architecture(blocks=1, batch_norm=True, classes=3))
    network(torch.rand(16, 3, 32, 32))
    return network


def expected_logits(network: nn.Module, dataset: Dataset) -> Tensor:
    images = torch.from_numpy(np.array(dataset.test.images)).permute(0, 3, 1, 2)
    network.eval()
    with torch.no_grad():
        logits: Tensor = network((images.float() / 255 - 0.5) / 0.5)
    network.train()
    return logits


def test_evaluation_agrees_with_plain_torch(
    network: BlockNetwork, dataset: Dataset, cpu: torch.device
) -> None:
    logits = expected_logits(network, dataset)
    labels = torch.from_numpy(np.array(dataset.test.labels))
    evaluation = evaluate(TorchEngine(network), dataset.test, device=cpu)
    assert evaluation.loss == pytest.approx(
        float(nn.functional.cross_entropy(logits, labels)), rel=1e-5
    )
    assert evaluation.accuracy == int((logits.argmax(1) == labels).sum()) / 60
    predictions, probabilities = evaluation.predictions, logits.softmax(1)
    assert np.array_equal(predictions.predicted, logits.argmax(1).numpy())
    assert np.allclose(predictions.probability, probabilities.max(1).values.numpy(), atol=1e-6)
    assert predictions.true_probability is not None
    of_labels = probabilities[torch.arange(60), labels].numpy()
    assert np.allclose(predictions.true_probability, of_labels, atol=1e-6)
    assert predictions.predicted.dtype == np.dtype(np.int64)
    assert predictions.probability.dtype == np.dtype(np.float32)


@pytest.mark.parametrize("batch_size", [1, 7, 60, 1_000])
def test_the_batch_size_does_not_matter(
    network: BlockNetwork, dataset: Dataset, cpu: torch.device, batch_size: int
) -> None:
    whole = evaluate(TorchEngine(network), dataset.test, device=cpu)
    evaluation = evaluate(TorchEngine(network), dataset.test, device=cpu, batch_size=batch_size)
    assert np.array_equal(evaluation.predictions.predicted, whole.predictions.predicted)
    assert evaluation.accuracy == whole.accuracy
    assert evaluation.loss == pytest.approx(whole.loss)


def test_nothing_of_the_network_changes(
    network: BlockNetwork, dataset: Dataset, cpu: torch.device
) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    network.tail.eval()
    evaluate(TorchEngine(network), dataset.test, device=cpu)
    assert network.training
    assert not network.tail.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_mode_is_restored_where_the_evaluation_fails(
    network: BlockNetwork, dataset: Dataset, cpu: torch.device
) -> None:
    def fail(*_: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        evaluate(TorchEngine(network), dataset.test, device=cpu, on_batch=fail)
    assert network.training


def test_batches_are_reported(network: BlockNetwork, dataset: Dataset, cpu: torch.device) -> None:
    seen: list[tuple[int, int]] = []
    evaluate(
        TorchEngine(network),
        dataset.test,
        device=cpu,
        batch_size=25,
        on_batch=lambda *step: seen.append(step),
    )
    assert seen == [(25, 60), (50, 60), (60, 60)]


def test_a_split_on_another_device_is_refused(
    network: BlockNetwork, dataset: Dataset, cpu: torch.device
) -> None:
    split = DeviceSplit(dataset.test, cpu)
    assert evaluate(TorchEngine(network), split, device=cpu).accuracy <= 1
    with pytest.raises(ValueError, match="is on cpu, not on cuda"):
        evaluate(TorchEngine(network), split, device=torch.device("cuda"))


def test_classify_takes_the_largest_logit_where_probabilities_are_equal() -> None:
    below = float(np.nextafter(np.float32(100), np.float32(0)))
    logits = torch.tensor([[below, 100.0, 0.0], [3.0, 1.0, 1.0]])
    predicted, probability, of_label = classify(logits, torch.tensor([2, 0]))
    assert predicted.tolist() == [1, 0]
    assert probability.tolist() == pytest.approx([0.5, 0.7869860], abs=1e-5)
    assert of_label.tolist() == pytest.approx([0, 0.7869860], abs=1e-5)
