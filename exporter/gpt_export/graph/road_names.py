"""What the roads from a module to a graph are called. Light: who only sets one up need not import torch."""

from __future__ import annotations

from typing import Literal

TakenRoad = Literal["script", "export"]
Road = Literal["auto", "script", "export"]
ROADS: tuple[Road, ...] = ("auto", "script", "export")
