"""The noise contract: exact words, the law, the tail, and the independence of how a draw is cut up."""

import math

import pytest
import scipy.stats
import torch

import softdraw
from softdraw import noise

RANDOM123_KNOWN_ANSWERS = [  # counter, key, words: kat_vectors of Random123, philox 4x32, 10 rounds
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def python_philox(counter, key):
    """Philox4x32-10 in Python's own integers: a second implementation, to check the first."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c3 ^ k1, p0 & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


def python_gumbel(seed, row, col, stream):
    """One value by the contract, in float64."""
    key = (seed % 2**32, (seed >> 32) % 2**32)
    rows = (row % 2**32, row >> 32)
    x = python_philox((col >> 2, *rows, stream), key)[col & 3]
    low = 0.5 if x >= 256 else (python_philox((col, *rows, stream + 2**31), key)[0] + 0.5) * 2**-32
    return -math.log(-math.log1p(-min((x + low) * 2**-32, 1 - 2**-24)))


@pytest.mark.parametrize(("counter", "key", "expected"), RANDOM123_KNOWN_ANSWERS)
def test_philox_known_answers(counter, key, expected):
    words = noise.philox(tuple(map(torch.tensor, counter)), tuple(map(torch.tensor, key)))
    assert tuple(int(word) for word in words) == expected
    assert python_philox(counter, key) == expected


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63 - 1, -(2**63), 2**64 - 1, 123456789012345678])
@pytest.mark.parametrize(("row", "col", "stream"), [(0, 0, 0), (5, 3, 1), (2**40 + 7, 2**32 - 5, 2**31 - 2)])
def test_values_follow_the_contract(seed, row, col, stream):
    got = softdraw.gumbel_noise((2, 5), seed=seed, rows=row, col_start=col, stream=stream, dtype=torch.float64)
    want = [[python_gumbel(seed, row + i, col + j, stream) for j in range(5)] for i in range(2)]
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize(
    ("row", "col", "x"), [(8622, 1085, 4), (6017, 431, 170), (3990, 3972, 191), (11743, 1447, 245)]
)
def test_values_with_a_second_word_follow_the_contract(row, col, x):
    # Places where the first word of seed 4 is below 256, found by a search of 2^26 words.
    assert noise.words(torch.tensor(4), torch.tensor([row]), 1, col, torch.tensor(0)).item() == x
    for dtype, tolerance in ((torch.float64, 1e-14), (torch.float32, 2**-22)):
        block = softdraw.gumbel_noise((3, 9), seed=4, rows=row - 1, col_start=col - 4, dtype=dtype)
        assert block[1, 4].item() == pytest.approx(python_gumbel(4, row, col, 0), rel=tolerance)
        assert block[1, 3].item() == pytest.approx(python_gumbel(4, row, col - 1, 0), abs=tolerance)


def test_law_is_gumbel():
    g = softdraw.gumbel_noise((1000, 10_000), seed=7).flatten().numpy()
    assert scipy.stats.kstest(g, "gumbel_r").pvalue > 1e-3


@pytest.mark.parametrize("axis", ["column", "row", "stream", "seed"])
def test_neighbours_are_uncorrelated(axis):
    n = 1_000_000
    a = softdraw.gumbel_noise((1, n), seed=1)
    neighbour = {
        "column": {"seed": 1, "col_start": 1},
        "row": {"seed": 1, "rows": 1},
        "stream": {"seed": 1, "stream": 1},
        "seed": {"seed": 2},
    }[axis]
    b = softdraw.gumbel_noise((1, n), **neighbour)
    assert abs(torch.corrcoef(torch.cat([a, b]))[0, 1].item()) < 4 / math.sqrt(n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("power", [1, 10, 20, 24, 26, 30, 40, 60])
def test_survival_function(power, dtype):
    # Words (x, w) are 64 uniform bits and G falls as they grow, so P(G > g) is the first (x, w) with G <= g over 2^64.
    p = 2.0**-power
    g = -math.log(-math.log1p(-p))
    low, high = 0, 2**64
    while low < high:
        middle = (low + high) // 2
        x, w = torch.tensor(middle >> 32), torch.tensor(middle & 0xFFFFFFFF)
        value = noise.gumbel_from_words(x, w, dtype).item()
        low, high = (middle + 1, high) if value > g else (low, middle)
    # float32 resolves g to 2^-24 relative, which moves the survival function by g times that.
    tolerance = g * 2**-22 + 2**-22 if dtype == torch.float32 else 1e-9
    # Above probability 2^-24 the second word is not read: the step is one first word.
    assert low * 2.0**-64 == pytest.approx(p, rel=tolerance + 2.0 ** (power - 32) * (power <= 24))


def test_extremes_are_finite():
    most = torch.tensor(2**32 - 1)
    for dtype in (torch.float32, torch.float64):
        largest = noise.gumbel_from_words(torch.tensor(0), torch.tensor(0), dtype).item()
        smallest = noise.gumbel_from_words(most, most, dtype).item()
        assert largest == pytest.approx(65 * math.log(2), rel=1e-6)
        assert smallest == pytest.approx(-math.log(24 * math.log(2)), rel=1e-6)


@pytest.mark.parametrize(("row", "col"), [(0, 0), (3, 1), (2, 17), (5, 38)])
def test_any_block_is_reproduced(row, col):
    whole = softdraw.gumbel_noise((2, 4, 41), seed=11, rows=100, stream=2).view(8, 41)
    block = softdraw.gumbel_noise((3, 3), seed=11, rows=100 + row, col_start=col, stream=2)
    assert torch.equal(block, whole[row : row + 3, col : col + 3])


def test_ids_key_the_noise():
    ids = torch.tensor([[7, 0, 2**45], [3, 3, 1]])
    got = softdraw.gumbel_noise((2, 3, 6), seed=5, rows=ids)
    for i in range(2):
        for j in range(3):
            assert torch.equal(got[i, j], softdraw.gumbel_noise((1, 6), seed=5, rows=int(ids[i, j]))[0])


def test_float32_is_float64_to_a_few_ulp():
    wide = softdraw.gumbel_noise((100, 1000), seed=2, dtype=torch.float64)
    narrow = softdraw.gumbel_noise((100, 1000), seed=2)
    # dG = du / ((1 - u) E): near u = 1 the 24 bits of u decide, elsewhere a few roundings of G itself.
    u = -torch.expm1(-torch.exp(-wide))
    bound = 2**-22 * wide.abs().clamp(min=1) + 2**-24 / ((1 - u) * torch.exp(-wide))
    assert ((wide - narrow).abs() < bound).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_the_rounded_float32(dtype):
    assert torch.equal(
        softdraw.gumbel_noise((9, 9), seed=1, dtype=dtype), softdraw.gumbel_noise((9, 9), seed=1).to(dtype)
    )


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3), (4,), (1, 1)])
def test_shapes(shape):
    assert softdraw.gumbel_noise(shape, seed=0).shape == shape
