"""cifar/network.py: known sizes, every operation, what works in training only. cifar/augment.py: every sample
its draws."""
import pytest
import torch
import torch.nn.functional as F

from cifar.augment import MEAN, STD, augmented, drop_path_masks, normalised, padded, uniform
from cifar.network import Cell, Halve, Network, cost, operation
from spaces.darts import NAMED, OPERATIONS, Genotype


def network(name: str = "DARTS_V2", channels: int = 4, cells: int = 4, auxiliary: bool = True) -> Network:
    torch.manual_seed(0)
    return Network(NAMED[name], channels, cells, auxiliary)


def noise(n: int, channels: int = 3, size: int = 32) -> torch.Tensor:
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(1))


# The network ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, parameters, macs", [
    ("DARTS_V1", 3_169_414, 500_987_520), ("DARTS_V2", 3_349_342, 528_359_040),
    ("GMAENAS_AE", 3_846_142, 596_013_696), ("GMAENAS_BO", 3_810_934, 592_225_920),
    ("YAHPO_AE", 3_596_662, 545_611_392), ("YAHPO_BO", 3_734_902, 581_885_568)])
def test_parameters_and_macs_at_the_size_of_the_papers(name, parameters, macs):
    assert cost(NAMED[name], 36, 20) == (parameters, macs)


def test_macs_are_those_of_a_network_counted_by_hand():
    """Only skip connections: stem, two 1x1 convolutions a cell (or two halving ones), and the classifier
    work."""
    skips = (("skip_connect", 0), ("skip_connect", 1)) * 4
    counted = cost(Genotype(skips, range(2, 6), skips, range(2, 6)), 2, 3)
    stem = 32 * 32 * 3 * 9 * 6
    normal = 32 * 32 * (6 * 2 + 6 * 2)
    # cell 1 halves: two inputs (6 and 8 channels) to 4 at 32 x 32, then eight halving edges of 4 channels
    first = 32 * 32 * (6 * 4 + 8 * 4) + 8 * 16 * 16 * 4 * 4
    # cell 2 halves again: the first input is halved on its way in (8 to 8), the second has 16 channels
    second = 16 * 16 * (8 * 8 + 16 * 8) + 8 * 8 * 8 * 8 * 8
    assert counted.macs == stem + normal + first + second + 32 * 10


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_forward_and_backward(name, stride):
    x = noise(2, 6, 8).requires_grad_()
    module = operation(name, 6, stride)
    out = module(x)
    assert out.shape == (2, 6, 8 // stride, 8 // stride)
    out.square().sum().backward()
    assert x.grad.abs().sum() > 0 and all(p.grad.abs().sum() > 0 for p in module.parameters())


def test_darts_v2_at_full_size_trains():
    full = network(channels=36, cells=20)
    logits, auxiliary = full(noise(2), torch.ones(2, 20, 8))
    assert logits.shape == auxiliary.shape == (2, 10)
    F.cross_entropy(logits + auxiliary, torch.tensor([0, 1])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in full.parameters())


def test_halving_looks_at_one_diagonal_of_each_four_pixels():
    x = noise(1, 4, 8).abs().requires_grad_()  # the ReLU passes everything
    Halve(4, 6).eval()(x).sum().backward()
    row, column = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    assert torch.equal((x.grad != 0).all((0, 1)), (row - column) % 2 == 0)


def test_the_image_is_halved_at_one_and_two_thirds_of_the_depth():
    sizes = []
    deep = network(cells=7)
    for cell in deep.cells:
        cell.register_forward_hook(lambda module, _, out: sizes.append((out.shape[1], out.shape[2])))
    deep(noise(2))
    assert sizes == [(16, 32)] * 2 + [(32, 16)] * 2 + [(64, 8)] * 3


def test_the_auxiliary_classifier_works_in_training_only():
    small = network()
    assert small(noise(2))[1].shape == (2, 10)
    assert small.eval()(noise(2))[1] is None
    assert network(auxiliary=False)(noise(2))[1] is None


def test_paths_are_dropped_in_training_only():
    small, x, none = network(), noise(2), torch.zeros(2, 4, 8)
    with torch.no_grad():
        kept = small(x, torch.ones(2, 4, 8))[0]
        assert torch.equal(kept, small(x)[0]) and not torch.equal(kept, small(x, none)[0])
        small.eval()
        assert torch.equal(small(x)[0], small(x, none)[0])


def test_a_path_is_dropped_for_its_own_image_and_copies_are_not_dropped():
    cell = Cell(NAMED["DARTS_V2"].normal, 4, 4, 4, reduces=False, halved=False)
    paths = torch.ones(2, 8)
    paths[1] = 0
    with torch.no_grad():
        whole, dropped = (cell(noise(2, 4, 8), noise(2, 4, 8), kept) for kept in (None, paths))
    # node 5 sees node 2 of both images, through normalisation
    assert torch.equal(whole[0, :12], dropped[0, :12])
    alive = dropped[1].view(4, 4, 8, 8).abs().sum((1, 2, 3)) > 0  # nodes 2..5; the last two copy node 0
    assert alive.tolist() == [False, False, True, True]


def test_a_network_of_two_cells_and_an_unknown_operation_are_refused():
    with pytest.raises(ValueError, match="at least 3 cells, not 2"):
        network(cells=2)
    with pytest.raises(ValueError, match="does not know the operation 'conv_7x7'"):
        operation("conv_7x7", 4, 1)


# Draws ------------------------------------------------------------------------------------------------------

INDEX = torch.arange(4000)


def test_draws_are_uniform_and_columns_independent():
    draw = uniform(7, INDEX, 3)
    assert draw.min() >= 0 and draw.max() < 1
    assert ((draw.mean(0) - 0.5).abs() < 0.02).all() and ((draw.var(0) - 1 / 12).abs() < 0.005).all()
    assert (torch.corrcoef(draw.T) - torch.eye(3)).abs().max() < 0.05


def test_a_draw_depends_on_stream_and_number_and_not_on_the_batch():
    draw = uniform(7, INDEX, 2)
    assert torch.equal(draw[[5, 900]], uniform(7, torch.tensor([5, 900]), 2))
    assert torch.equal(draw, uniform(7, INDEX, 5)[:, :2])
    for other in (uniform(8, INDEX, 2), uniform(7, INDEX + 1, 2), uniform(2**63 - 1, INDEX, 2)):
        assert abs(torch.corrcoef(torch.stack([draw[:, 0], other[:, 0]]))[0, 1]) < 0.05


def test_paths_drop_the_given_share_and_keep_the_mean():
    paths = drop_path_masks(INDEX, 3, 0.25, cells=2, edges=8)
    assert paths.shape == (4000, 2, 8) and paths.unique().tolist() == pytest.approx([0, 4 / 3])
    assert abs((paths == 0).float().mean() - 0.25) < 0.01
    assert (drop_path_masks(INDEX, 3, 0.0, 2, 8) == 1).all()


# Augmentation -----------------------------------------------------------------------------------------------

@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randint(1, 256, (6, 32, 32, 3), generator=torch.Generator().manual_seed(2),
                         dtype=torch.uint8)


def test_normalised_pixels(pixels):
    image = normalised(pixels)[1]
    assert image.shape == (3, 32, 32)
    expected = (float(pixels[1, 4, 9, 2]) / 255 - MEAN[2]) / STD[2]
    assert image[2, 4, 9].item() == pytest.approx(expected, abs=1e-5)


def test_an_augmented_image_is_a_crop_or_its_mirror_image(pixels):
    stored = padded(pixels)
    crops = {(top, left): normalised(stored[:, top:top + 32, left:left + 32])
             for top in range(9) for left in range(9)}
    seen = set()
    for stream in range(40):
        for i, image in enumerate(augmented(stored, torch.arange(6), stream, cutout=0)):
            matches = {(*corner, flipped) for corner, crop in crops.items() for flipped in (False, True)
                       if torch.equal(image, crop[i].flip(2) if flipped else crop[i])}
            assert len(matches) == 1
            seen |= matches
    assert {top for top, *_ in seen} == {left for _, left, _ in seen} == set(range(9))
    assert len({f for *_, f in seen}) == 2


def test_cutout_is_one_square_around_a_random_pixel_of_the_mean_colour(pixels):
    stored, index = padded(pixels), torch.arange(6)
    heights = set()
    for stream in range(30):
        plain, cut = (augmented(stored, index, stream, size) for size in (0, 16))
        changed = (cut != plain).any(1)  # [6, 32, 32]
        assert (cut.permute(0, 2, 3, 1)[changed] == 0).all()
        for hole in changed:
            rows, columns = hole.any(1).nonzero(), hole.any(0).nonzero()
            height, width = len(rows), len(columns)
            assert hole.sum() == height * width and 8 <= min(height, width) and max(height, width) <= 16
            heights.add(height)
    assert {8, 16} <= heights  # clipped at the border, and whole


def test_an_image_is_augmented_alike_in_any_batch_and_layout_is_channels_last(pixels):
    stored = padded(pixels)
    whole = augmented(stored, torch.arange(6), 5, 16)
    assert torch.equal(whole[[4, 1]], augmented(stored, torch.tensor([4, 1]), 5, 16))
    assert not torch.equal(whole, augmented(stored, torch.arange(6), 6, 16))
    assert whole.is_contiguous(memory_format=torch.channels_last)
