"""What the metrics of a training say about its health while it runs."""

from __future__ import annotations

from collections.abc import Mapping

_DEAD_DB = -100.0  # a harmonic part that is taught by the recordings never stays there
_SILENT_DB = -80.0  # recordings below are nothing to learn harmonics from
_PATIENCE = 2  # summaries: within the first steps the level may fall and come back


class HarmonicsWatch:
    """Notices a harmonic part that has died.

    Amplitudes that were pushed to the floor of `exp_sigmoid` get no gradient any more: they stay there, the
    noise alone imitates the recordings, and the loss goes on falling a little, so that nobody sees it.
    """

    def __init__(self) -> None:
        self._dead, self._said = 0, False

    def check(self, step: int, metrics: Mapping[str, float]) -> str:
        """Takes the metrics of a summary; a sentence when there is something to say, once, else `''`.

        Args:
          step: Steps done.
          metrics: `energy/harmonic_db` and `energy/target_db`, where the model has a harmonic part.
        """
        level, target = metrics.get('energy/harmonic_db', 0.0), metrics.get('energy/target_db', -120.0)
        self._dead = self._dead + 1 if level < _DEAD_DB and target > _SILENT_DB else 0
        if self._dead < _PATIENCE or self._said:
            return ''
        self._said = True
        return (
            f'step {step}: dead harmonics: the harmonic part stays at {level:.0f} dB where the recordings '
            f'have {target:.0f} dB, and the noise alone imitates them. Begin again in a new folder with a '
            'longer warm-up (Trainer.lr_warmup_steps, 100 or more) or a smaller Trainer.learning_rate'
        )
