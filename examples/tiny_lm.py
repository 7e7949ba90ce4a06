"""A small real language model, in plain numpy: from the last 16 characters it guesses the next one.

Trained in seconds on this project's own documentation, on one CPU; no download. examples/serve.py serves it.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

CONTEXT, EMBEDDING, WIDTH, BATCH = 16, 12, 192, 256
TEXT = Path(__file__).parent.parent


class TinyLM:
    """An embedding, one hidden layer, a softmax over the characters that the text has."""

    def __init__(self, text: str, seed: int = 0) -> None:
        self.characters = sorted(set(text))
        self._number = {character: number for number, character in enumerate(self.characters)}
        self._data = np.array([self._number[character] for character in text])
        self._rng = np.random.default_rng(seed)
        kinds = len(self.characters)
        self._weights = {
            "embedding": self._rng.normal(size=(kinds, EMBEDDING)) * 0.3,
            "w1": self._rng.normal(size=(CONTEXT * EMBEDDING, WIDTH)) / np.sqrt(CONTEXT * EMBEDDING),
            "b1": np.zeros(WIDTH),
            "w2": self._rng.normal(size=(WIDTH, kinds)) / np.sqrt(WIDTH),
            "b2": np.zeros(kinds),
        }

    def train(self, seconds: float) -> tuple[int, float]:
        """Train for a time with Adam; returns the steps done and the loss on the last batches, nats a character."""
        means = {name: np.zeros_like(value) for name, value in self._weights.items()}
        squares = {name: np.zeros_like(value) for name, value in self._weights.items()}
        until, step, loss = time.monotonic() + seconds, 0, float("nan")
        while time.monotonic() < until:
            step += 1
            batch_loss, gradients = self._gradients()
            loss = batch_loss if step == 1 else 0.98 * loss + 0.02 * batch_loss
            for name, gradient in gradients.items():
                means[name] += 0.1 * (gradient - means[name])
                squares[name] += 0.01 * (gradient**2 - squares[name])
                mean, square = means[name] / (1 - 0.9**step), squares[name] / (1 - 0.99**step)
                self._weights[name] -= 0.003 * mean / (np.sqrt(square) + 1e-8)
        return step, loss

    def generate(self, prompt: str, length: int, temperature: float = 0.6) -> Iterator[str]:
        """Goes on from a prompt, one character (its unit of work: a token) at a time."""
        context = [self._number.get(character, 0) for character in prompt.rjust(CONTEXT)[-CONTEXT:]]
        for _ in range(length):
            _, _, scores = self._forward(np.array([context]))
            weights = np.exp((scores[0] - scores[0].max()) / temperature)
            chosen = int(self._rng.choice(len(weights), p=weights / weights.sum()))
            context = [*context[1:], chosen]
            yield self.characters[chosen]

    def _forward(self, contexts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        w = self._weights
        embedded = w["embedding"][contexts].reshape(len(contexts), -1)
        hidden = np.tanh(embedded @ w["w1"] + w["b1"])
        return embedded, hidden, hidden @ w["w2"] + w["b2"]

    def _gradients(self) -> tuple[float, dict[str, np.ndarray]]:
        w = self._weights
        starts = self._rng.integers(0, len(self._data) - CONTEXT, BATCH)
        contexts = self._data[starts[:, None] + np.arange(CONTEXT)]
        nexts = self._data[starts + CONTEXT]
        embedded, hidden, scores = self._forward(contexts)
        chances = np.exp(scores - scores.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        loss = float(-np.log(chances[np.arange(BATCH), nexts]).mean())
        d_scores = chances
        d_scores[np.arange(BATCH), nexts] -= 1
        d_scores /= BATCH
        d_hidden = (d_scores @ w["w2"].T) * (1 - hidden**2)
        d_embedding = np.zeros_like(w["embedding"])
        np.add.at(d_embedding, contexts, (d_hidden @ w["w1"].T).reshape(BATCH, CONTEXT, EMBEDDING))
        return loss, {
            "embedding": d_embedding,
            "w1": embedded.T @ d_hidden,
            "b1": d_hidden.sum(axis=0),
            "w2": hidden.T @ d_scores,
            "b2": d_scores.sum(axis=0),
        }


def documentation() -> str:
    """The text that it learns: this project's own pages."""
    pages = sorted((TEXT / "docs").glob("*.md"))
    return "\n".join(page.read_text(encoding="utf-8") for page in [TEXT / "README.md", *pages])
