"""Whether a shard in the cache is used again or trained anew: what its parameters and its record must say."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paramtrans.api.stacking import Params
from paramtrans.errors import Damaged
from paramtrans.storage import sealed_params
from paramtrans.utils.boundary import well_formed
from paramtrans.zoo import fingerprint, warm_start
from paramtrans.zoo.recipe import hosts_digest

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CachedShard:
    """A shard's file, and what it must say so that it is used again."""

    step: int
    path: Path
    identity: Callable[[], dict[str, Any]]
    """Format, step, role and seeds, as `recipe.identity` has them; asked for where there is a file."""
    fingerprint: Callable[[], dict[str, Any]]
    """Numbers of what the code that makes such a shard computes now."""
    hosts: Path | None
    """The file of hosts that it began with (step 1) or that its targets were trained in (step 2); None without."""

    def is_reusable(self, outdated: int, warned: set[str]) -> bool:
        """Whether the shard is there, whole, and what would be trained now; what speaks against it is reported.

        Args:
            outdated: Shards that were finished up to then, in nanoseconds as files tell time, are trained anew.
            warned: Providers of another version that were reported before; further ones are added.
        """
        if sealed_params.written(self.path) <= outdated:
            if self.path.exists() and not outdated:
                logger.warning("%s: has no record, so it was never finished; it is trained again", self.path)
            return False
        try:
            self.load(warned)
        except Damaged as error:
            logger.warning("%s; it is trained again", error)
            return False
        return True

    def load(self, warned: set[str]) -> Params:
        """The parameters of the shard.

        Args:
            warned: As in `is_reusable`.

        Raises:
            Damaged: the file is not this shard, whole, of the hosts and the code that there are now.
        """
        params, record = sealed_params.load_params(self.path)
        identity = self.identity()
        if different := [key for key, value in identity.items() if record.get(key) != value]:
            raise Damaged(f"{self.path}: is another shard's file ({', '.join(different)} differ)")
        with well_formed(sealed_params.record_path(self.path)):
            fingerprint.check(record.get(fingerprint.KEY), self.fingerprint(), self.path, warned)
            if not 0 <= record["seconds"] < math.inf:
                raise ValueError(f"seconds are {record['seconds']}")
        if self.hosts and self.step == 1 and not warm_start.is_recorded(record, self.hosts):
            raise Damaged(f"{self.path}: began with other hosts than there are now")
        if self.hosts and self.step == 2:
            hosts, _ = sealed_params.load_params(self.hosts)
            if record.get("hosts_sha256") != hosts_digest(hosts, len(identity["seeds"])):
                raise Damaged(f"{self.path}: its targets were trained in other hosts than there are now")
        return params
