"""A small real training script: a two-layer network learns to tell two spirals apart, in plain numpy.

    python examples/train.py --seconds 6

Run it under `wattribute run`; docs/python.md has the same from inside.
"""

import argparse
import time

import numpy as np


def spirals(points: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two intertwined spirals: (2 * points, 2) coordinates and their 0/1 labels."""
    turn = np.sqrt(rng.random(points)) * 3 * np.pi
    arm = np.stack([turn * np.cos(turn), turn * np.sin(turn)], axis=1) / (3 * np.pi)
    x = np.concatenate([arm, -arm]) + rng.normal(scale=0.02, size=(2 * points, 2))
    return x, np.repeat([0.0, 1.0], points)


def train(seconds: float, width: int = 64, seed: int = 0) -> tuple[int, float]:
    """Train for a time; returns the steps done and the accuracy on fresh points."""
    rng = np.random.default_rng(seed)
    x, y = spirals(500, rng)
    w1, b1 = rng.normal(size=(2, width)) * 3, rng.normal(size=width)
    w2, b2 = rng.normal(size=(width, width)) / np.sqrt(width), np.zeros(width)
    w3, b3 = rng.normal(size=width) / np.sqrt(width), 0.0
    rate, steps, until = 0.3, 0, time.monotonic() + seconds
    while time.monotonic() < until:
        h1 = np.tanh(x @ w1 + b1)
        h2 = np.tanh(h1 @ w2 + b2)
        p = 1 / (1 + np.exp(-(h2 @ w3 + b3)))
        error = (p - y) / len(y)
        d2 = np.outer(error, w3) * (1 - h2**2)
        d1 = (d2 @ w2.T) * (1 - h1**2)
        w3, b3 = w3 - rate * h2.T @ error, b3 - rate * error.sum()
        w2, b2 = w2 - rate * h1.T @ d2, b2 - rate * d2.sum(axis=0)
        w1, b1 = w1 - rate * x.T @ d1, b1 - rate * d1.sum(axis=0)
        steps += 1
    x, y = spirals(500, rng)
    guess = np.tanh(np.tanh(x @ w1 + b1) @ w2 + b2) @ w3 + b3 > 0
    return steps, float((guess == (y > 0.5)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    steps, accuracy = train(arguments.seconds, seed=arguments.seed)
    print(f"{steps} steps, accuracy {accuracy:.1%}")


if __name__ == "__main__":
    main()
