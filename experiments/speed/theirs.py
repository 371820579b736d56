"""The PyTorch side: a worker that times one eager round for each input line."""

import argparse
import json
import math
import sys
import time

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from torch import nn


class Block(nn.Module):
    """A DiT block with adaLN-Zero."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Linear(dim, 6 * dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(approximate="tanh"), nn.Linear(4 * dim, dim)
        )

    def forward(self, x: torch.Tensor, emb: torch.Tensor) -> torch.Tensor:
        """Tokens [B, L, D] and conditioning [B, D] -> tokens [B, L, D]."""
        b, length, dim = x.shape
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(emb)[:, None].chunk(
            6, dim=-1
        )
        h = self.norm(x) * (1 + scale_a) + shift_a
        q, k, v = self.qkv(h).view(b, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, length, dim)
        x = x + gate_a * self.out(h)
        return x + gate_m * self.mlp(self.norm(x) * (1 + scale_m) + shift_m)


class DiT(nn.Module):
    """The counterpart of our DiT: patches of 4, width 384, 12 blocks, 6 heads."""

    def __init__(self, dim: int = 384, depth: int = 12, heads: int = 6, patch: int = 4):
        super().__init__()
        self.patches = nn.Conv2d(3, dim, patch, stride=patch)
        self.time = nn.Sequential(nn.Linear(256, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.register_buffer("position", torch.randn(1, (32 // patch) ** 2, dim))
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, patch * patch * 3)
        self.shuffle = nn.PixelShuffle(patch)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Images [B, 3, 32, 32] and times [B] -> images."""
        frequencies = torch.exp(-math.log(1e4) / 128 * torch.arange(128))
        angles = t[:, None] * frequencies
        emb = F.silu(self.time(torch.cat([angles.cos(), angles.sin()], dim=-1)))
        h = self.patches(x)
        height, width = h.shape[2:]
        h = h.flatten(2).transpose(1, 2) + self.position
        for block in self.blocks:
            h = block(h, emb)
        shift, scale = self.modulation(emb)[:, None].chunk(2, dim=-1)
        h = self.out(self.norm(h) * (1 + scale) + shift)
        return self.shuffle(h.transpose(1, 2).unflatten(2, (height, width)))


def network(name: str) -> nn.Module:
    """The counterparts of ours.py's networks, with equally many parameters."""
    if name == "dit":
        return DiT()
    return UNet2DModel(
        sample_size=32,
        layers_per_block=2,
        block_out_channels=(64, 128, 128),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=32,
    )


def main() -> None:
    """Serves bench.py."""
    parser = argparse.ArgumentParser()
    parser.add_argument("network", choices=["unet", "dit"])
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()
    net = network(args.network)
    x, t = torch.randn(args.batch, 3, 32, 32), torch.linspace(10, 990, args.batch)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)

    def predict() -> torch.Tensor:
        out = net(x, t)
        return out.sample if args.network == "unet" else out

    for line in sys.stdin:
        train = line.strip() == "train"
        start = time.perf_counter()
        with torch.set_grad_enabled(train):
            out = predict()
        if train:
            optimizer.zero_grad()
            ((out - x) ** 2).mean().backward()
            optimizer.step()
        print(json.dumps(time.perf_counter() - start), flush=True)


if __name__ == "__main__":
    main()
