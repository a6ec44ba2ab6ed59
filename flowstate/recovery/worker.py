"""Running what is ready, for the flows that this process has."""

from __future__ import annotations

import logging

logger = logging.getLogger("flowstate.recovery")
