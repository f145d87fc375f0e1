"""How near an image is to the one it should be: peak signal-to-noise ratio, structural similarity.

Values are between 0 and 1. PSNR is that of all bands together. SSIM is that of Wang et al. 2004,
"Image quality assessment", with its constants: Gaussian windows of 11 x 11 pixels and deviation
1.5 that lie inside of the image, the mean over the bands.
"""

import numpy as np

from hpcgeo.kinds.target import Array, Float64

#: Deviation of the window in pixels, and its half-width.
SIGMA, HALF = 1.5, 5
WINDOW = np.exp(-0.5 * np.square(np.arange(-HALF, HALF + 1) / SIGMA))
#: C1 and C2 of the paper, for a range of values of 1.
CONSTANTS = 0.01**2, 0.03**2
#: An error below it is none: 100 dB.
LEAST = 1e-10


def psnr(found: Array, truth: Array) -> float:
    """Return the peak signal-to-noise ratio of an image (K, H, W) in dB; at most 100.

    >>> round(psnr(np.full((1, 2, 2), 0.1), np.zeros((1, 2, 2))), 6)
    20.0
    """
    error = np.square(found.astype(np.float64) - truth).mean()
    return float(-10 * np.log10(max(error, LEAST)))


def ssim(found: Array, truth: Array) -> Float64:
    """Return the structural similarity of each band of an image (K, H, W), (K,).

    In an image below 11 x 11 windows are mirrored at the edges.
    """
    x, y = found.astype(np.float64), truth.astype(np.float64)
    cut = HALF if min(x.shape[1:]) > 2 * HALF else 0
    inside = slice(None), *(slice(cut, side - cut) for side in x.shape[1:])

    def mean(image: Float64) -> Float64:
        for axis, side in ((1, image.shape[1]), (2, image.shape[2])):
            sides = [(HALF, HALF) if one == axis else (0, 0) for one in range(3)]
            padded = np.pad(image, sides, "symmetric")
            shifted = (padded.take(range(n, n + side), axis) for n in range(len(WINDOW)))
            image = sum(w * each for w, each in zip(WINDOW / WINDOW.sum(), shifted, strict=True))
        return image[inside]

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    c1, c2 = CONSTANTS
    similar = (2 * mx * my + c1) * (2 * cov + c2)
    similar /= (mx * mx + my * my + c1) * (vx + vy + c2)
    return np.asarray(similar.mean(axis=(1, 2)))
