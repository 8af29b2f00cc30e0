"""The label-wise embedding encoder: one fixed query per label reads the last map."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Probability that an untrained head gives every label, about the share of labels that a photograph of MS-COCO shows.
LABEL_PRIOR = 0.04


class Memory(NamedTuple):
    """What the queries read of the H*W positions: embeddings (N, H*W, E), and keys and values, each (N, heads, H*W, E / heads)."""

    tokens: Tensor
    keys: Tensor
    values: Tensor


class LabelHead(nn.Module):
    """Turns a last map (N, D, H, W) into label-wise embeddings (N, C, E) and logits (N, C).

    One decoder layer with cross-attention and feed-forward and **no self-attention**, so label c's embedding and logit depend on
    query c alone: any subset of labels can be computed without the others.

    Source: L2D (arXiv 2308.06453) after ML-Decoder, whose own layer cannot run on torch >= 2.1. The queries are fixed, not trained.

    Args:
        in_channels: D, channels of the last map.
        num_labels: C.
        width: E, width of the embeddings (768 as published).
        feedforward: width of the hidden layer in the feed-forward part (2048 as published).
        heads: attention heads; must divide `width`.
        dropout: on queries, attention weights, and both residual branches.

    Raises:
        ValueError: without a label, or for sizes that no layer can have.
    """

    queries: Tensor

    def __init__(self, in_channels: int, num_labels: int, width: int = 768, feedforward: int = 2048, heads: int = 8, dropout: float = 0.1):
        super().__init__()
        if num_labels < 1:
            raise ValueError(f"A head needs at least one label; got {num_labels}.")
        if width < 1 or width % heads:
            raise ValueError(f"The head's width must be a multiple of its {heads} attention heads; got {width}.")
        if feedforward < 1:
            raise ValueError(f"The width of the head's feed-forward part must be at least 1; got {feedforward}.")
        self.heads = heads
        self.embed = nn.Linear(in_channels, width)
        self.register_buffer("queries", torch.randn(num_labels, width))
        self.query, self.key, self.value, self.project = (nn.Linear(width, width) for _ in range(4))
        self.norm_query, self.norm_attention, self.norm_feedforward = (nn.LayerNorm(width) for _ in range(3))
        self.expand, self.reduce = nn.Linear(width, feedforward), nn.Linear(feedforward, width)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Parameter(torch.empty(num_labels, width))
        # A label is rare: starting at even odds would spend the first hundreds of steps on learning just that.
        self.bias = nn.Parameter(torch.full((num_labels,), -math.log(1 / LABEL_PRIOR - 1)))
        nn.init.xavier_normal_(self.classifier)

    def forward(self, last_map: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return embeddings (N, C, E) and logits (N, C); with `labels` (indices, (L,)) only those, in that order."""
        return self.decode(self.memory(last_map), labels)

    def memory(self, last_map: Tensor) -> Memory:
        """What there is to read in a last map (N, D, H, W)."""
        tokens = F.relu(self.embed(last_map.flatten(2).transpose(1, 2)))
        return Memory(tokens, self._split(self.key(tokens)), self._split(self.value(tokens)))

    def decode(self, memory: Memory, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Let the queries of `labels` (all by default) read the memory: embeddings (N, L, E) and logits (N, L)."""
        images = memory.keys.shape[0]
        queries = self._queries(images, labels)
        asked = self._split(self.query(queries)).expand(images, -1, -1, -1)
        read = F.scaled_dot_product_attention(asked, memory.keys, memory.values, dropout_p=self.dropout.p if self.training else 0.0)
        return self._finish(queries, read, labels)

    def attention(self, last_map: Tensor, labels: Tensor | None = None) -> Tensor:
        """How the queries spread over the map: weights averaged over heads, (N, L, H, W), each map sums to 1."""
        keys = self.memory(last_map).keys
        queries = self._split(self.query(self._queries(keys.shape[0], labels)))
        weights = (queries @ keys.transpose(-2, -1) * keys.shape[-1] ** -0.5).softmax(-1).mean(1)
        return weights.unflatten(-1, last_map.shape[-2:])

    def token_gradients(self, memory: Memory, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient of every label's logit with respect to what `embed` gives before its ReLU, and the logits, of **one** image.

        In evaluation mode; leaves no graph. No graph is walked for each label either, since the attention has a closed form. For one
        head with query q (scaled), keys K, values V, weights a = softmax(K q), read r = a V, and u the logit's gradient at r:

            at V_t:  a_t u                        at K_t:  a_t (V_t . u - r . u) q

        Both are a number per position times a vector per label, so the vectors can go back through the linear layers of key and value
        **before** they meet the positions: 2 x heads vectors per label instead of H*W positions per label.

        Args:
            memory: of one last map.
            labels: indices, (L,).

        Returns:
            Gradients (L, H*W, E) and logits (L,).
        """
        with torch.inference_mode(False), torch.no_grad():
            tokens, keys, values = memory
            queries = self._queries(1, labels)
            asked = self._split(self.query(queries)) * keys.shape[-1] ** -0.5
            weights = (asked @ keys.mT).softmax(-1)
            read = weights @ values
            upstream, logits = self._upstream(queries, read, labels)
            scores = weights * (upstream @ values.mT - (upstream * read).sum(-1, keepdim=True))
            per_position = torch.cat([scores, weights], 1)[0]
            per_label = torch.cat([asked[0] @ self._per_head(self.key), upstream[0] @ self._per_head(self.value)])
            return (per_position.permute(1, 2, 0) @ per_label.transpose(0, 1)).mul_(tokens.sign()), logits

    def _upstream(self, queries: Tensor, read: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient of each label's logit at what its query read, (1, heads, L, E / heads), and the logits (L,)."""
        with torch.enable_grad():
            read = read.detach().requires_grad_()
            # A copy, because autograd refuses to keep indices that were made in inference mode.
            _, logits = self._finish(queries, read, labels.clone())
            # Label c's logit depends on row c alone, so the gradient of the sum holds every label's own gradient.
            (upstream,) = torch.autograd.grad(logits.sum(), read)
        return upstream, logits.detach()[0]

    def _per_head(self, linear: nn.Linear) -> Tensor:
        return linear.weight.unflatten(0, (self.heads, -1))

    def _queries(self, batch: int, labels: Tensor | None) -> Tensor:
        queries = self.queries if labels is None else self.queries[labels]
        if self.training:
            queries = queries.expand(batch, -1, -1)
            return self.norm_query(queries + self.dropout(queries))
        # In evaluation every image asks the same thing: one row of queries serves the whole batch, and a compiler makes it a constant.
        return self.norm_query(queries + queries)[None]

    def _finish(self, queries: Tensor, read: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        x = self.norm_attention(queries + self.dropout(self.project(read.transpose(1, 2).flatten(2))))
        hidden = self.dropout(F.relu(self.expand(x)))
        embeddings = self.norm_feedforward(x + self.dropout(self.reduce(hidden)))
        weight, bias = (self.classifier, self.bias) if labels is None else (self.classifier[labels], self.bias[labels])
        return embeddings, (embeddings * weight).sum(-1) + bias

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
