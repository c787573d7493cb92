"""Who has a training folder, with which settings, and what becomes of what lies there."""

from __future__ import annotations

import pytest

from ddsp.errors import ConfigError
from ddsp.io.files import FolderInUseError
from experiments.run.training_folder import check, has_steps, owned

SETTINGS = {'gin_params': ['Trainer.learning_rate = 0.1']}
OTHER = {'gin_params': ['Trainer.learning_rate = 0.2']}


def enter(folder, wanted=SETTINGS, restart=False):
    told = []
    return owned(folder, wanted, {'where': 'here'}, restart=restart, warn=told.append), told


def train(folder, *steps):
    """What a training leaves."""
    for step in steps:
        (folder / f'operative_config-{step}.gin').write_text('')
        if step:
            (folder / f'ckpt-{step}.index').write_text('')
            (folder / f'ckpt-{step}.data-00000-of-00001').write_text('')
            (folder / 'checkpoint').write_text('')


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != '.lock')


def test_a_folder_has_one_owner(tmp_path):
    with enter(tmp_path / 'run')[0], pytest.raises(FolderInUseError, match='run belongs to a training that'):
        enter(tmp_path / 'run')[0].__enter__()
    with enter(tmp_path / 'run')[0]:
        pass


def test_settings_stay_once_a_step_was_saved(tmp_path):
    folder = tmp_path / 'run'
    with enter(folder)[0]:
        train(folder, 0, 300)
    with (
        pytest.raises(ConfigError, match=r'begun with .*0\.1.*not .*0\.2.*or add --restart'),
        enter(folder, OTHER)[0],
    ):
        pass
    with pytest.raises(ConfigError, match='begun with'):
        check(folder, OTHER)
    with enter(folder)[0]:
        assert 'ckpt-300.index' in names(folder)


def test_a_folder_without_a_step_takes_other_settings(tmp_path):
    folder = tmp_path / 'run'
    with enter(folder)[0]:
        train(folder, 0)
        (folder / 'run.json').write_text('{}')
    entered, told = enter(folder, OTHER)
    with entered:
        assert names(folder) == ['train.json']
        (aside,) = tmp_path.glob('run.before-*')
        assert names(aside) == ['operative_config-0.gin', 'run.json', 'train.json']
        assert told == [f'what lay in {folder} is in {aside} now.']
    with enter(folder, OTHER)[0]:  # the same again goes on
        assert len(list(tmp_path.glob('run.before-*'))) == 1


def test_a_restart_moves_everything_aside_twice_in_a_second(tmp_path):
    folder = tmp_path / 'run'
    for _ in range(3):
        with enter(folder, restart=True)[0]:
            assert names(folder) == ['train.json']
            train(folder, 0, 300, 600)
    found = sorted(tmp_path.glob('run.before-*'))
    assert len(found) == 2
    assert all('ckpt-600.index' in names(aside) for aside in found)


@pytest.mark.parametrize('left', [('checkpoint',), ('bundle',), ('operative_config-600.gin',)])
def test_checkpoints_that_are_gone_do_not_begin_at_zero(tmp_path, left):
    folder = tmp_path / 'run'
    with enter(folder)[0]:
        train(folder, 0, 300, 600)
        (folder / 'bundle').mkdir()
    for path in list(folder.iterdir()):
        if path.name.startswith('ckpt-') or (
            path.is_file() and path.name in {'checkpoint', 'operative_config-600.gin'} - set(left)
        ):
            path.unlink()
    if 'bundle' not in left:
        (folder / 'bundle').rmdir()
    with pytest.raises(ConfigError, match=r'has lost its checkpoints.*add --restart'), enter(folder)[0]:
        pass
    with enter(folder, restart=True)[0]:
        assert not has_steps(folder)


def test_a_training_killed_before_its_first_checkpoint_goes_on(tmp_path):
    folder = tmp_path / 'run'
    with enter(folder)[0]:
        train(folder, 0)
        (folder / 'operative_config-300.gin').write_text('')  # the checkpoint was being written
    with enter(folder)[0]:
        assert 'operative_config-300.gin' in names(folder)
