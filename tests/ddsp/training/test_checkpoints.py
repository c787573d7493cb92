"""Checkpoints: kept, fallen back on, and refused with a reason."""

import numpy as np
import pytest
import tensorflow as tf

from ddsp.errors import DDSPError
from ddsp.training import checkpoints, train_util


def _save(directory, *steps, keep=5):
    for step in steps:
        checkpoints.save({'x': np.float32(step)}, str(directory), step, keep)


def _read(found):
    def read(prefix):
        found.append(float(tf.train.load_checkpoint(prefix).get_tensor('x')))

    return read


def test_the_newest_are_kept(tmp_path):
    _save(tmp_path, 10, 20, 100, keep=2)
    assert [checkpoints.checkpoint_step(p) for p in checkpoints.list_checkpoints(tmp_path)] == [100, 20]
    assert train_util.get_latest_checkpoint(tmp_path) == str(tmp_path / 'ckpt-100')
    assert train_util.get_latest_checkpoint(tmp_path / 'ckpt-20') == str(tmp_path / 'ckpt-20')
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / 'ckpt-100')
    assert sorted(p.name for p in tmp_path.glob('ckpt-10.*')) == []


@pytest.mark.parametrize('damage', ['truncate', 'alter', 'remove'])
def test_a_damaged_checkpoint_is_passed_over_with_a_word(tmp_path, damage):
    _save(tmp_path, 1, 2)
    data = next(tmp_path.glob('ckpt-2.data*'))
    if damage == 'remove':
        data.unlink()
    elif damage == 'truncate':
        data.write_bytes(data.read_bytes()[:2])
    else:
        data.write_bytes(bytes(255 - b for b in data.read_bytes()))
    found, said = [], []
    assert checkpoints.restore_newest(_read(found), tmp_path, said.append) == str(tmp_path / 'ckpt-1')
    assert found == [1.0]
    assert len(said) == 1
    assert 'ckpt-2 cannot be read' in said[0]


def test_when_nothing_can_be_read_every_reason_is_given(tmp_path):
    _save(tmp_path, 1, 2)
    for data in tmp_path.glob('*.data*'):
        data.write_bytes(b'')
    with pytest.raises(checkpoints.CheckpointError, match=r'no checkpoint can be read: .*ckpt-2.*ckpt-1'):
        checkpoints.restore_newest(_read([]), tmp_path, lambda _: None)


def test_no_checkpoint_is_also_a_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match='no checkpoint at'):
        train_util.get_latest_checkpoint(tmp_path)
    assert not checkpoints.has_checkpoint(tmp_path / 'nowhere')


def test_what_cannot_be_written_leaves_the_older_ones(tmp_path):
    import resource

    _save(tmp_path, 1)
    large = {'x': np.zeros(1 << 18, np.float32)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))  # as a full disk: writes fail
    try:
        with pytest.raises(
            checkpoints.CheckpointError, match=r'ckpt-2 cannot be written.*before it are unharmed'
        ):
            checkpoints.save(large, str(tmp_path), 2, 5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert train_util.get_latest_checkpoint(tmp_path) == str(tmp_path / 'ckpt-1')
    assert sorted(p.name.split('.')[0] for p in tmp_path.glob('ckpt-*')) == ['ckpt-1', 'ckpt-1']


def test_the_newest_operative_config_is_found(tmp_path):
    for step in (0, 90, 100):
        (tmp_path / f'operative_config-{step}.gin').write_text('')
    assert train_util.get_latest_operative_config(tmp_path).endswith('operative_config-100.gin')
    assert train_util.get_latest_operative_config(tmp_path / 'ckpt-100').endswith('operative_config-100.gin')
    with pytest.raises(FileNotFoundError, match='no file'):
        train_util.get_latest_file(tmp_path, prefix='other-')


def test_a_link_in_a_folder_is_removed_and_not_what_it_leads_to(tmp_path):
    """Whoever trains on in somebody's folder must not lose a folder elsewhere."""
    precious = tmp_path / 'precious'
    (precious / 'deep').mkdir(parents=True)
    (precious / 'deep' / 'thesis.txt').write_text('mine')
    run = tmp_path / 'run'
    _save(run, 1)
    (run / 'ckpt-1_temp').symlink_to(precious)
    _save(run, 2, keep=1)
    assert (precious / 'deep' / 'thesis.txt').read_text() == 'mine'
    assert not list(run.glob('ckpt-1*'))


@pytest.mark.parametrize('name', ['{elsewhere}/model-9', '../elsewhere/model-9'])
def test_a_folder_names_no_checkpoint_elsewhere(tmp_path, name):
    elsewhere = tmp_path / 'elsewhere'
    tf.train.Checkpoint(x=tf.Variable(1.0)).write(str(elsewhere / 'model-9'))
    run = tmp_path / 'run'
    run.mkdir()
    (run / 'checkpoint').write_text(f'model_checkpoint_path: "{name.format(elsewhere=elsewhere)}"\n')
    assert tf.train.latest_checkpoint(str(run)) is not None
    with pytest.raises(DDSPError, match=r'run/checkpoint names .*model-9., which is not a file name inside'):
        train_util.get_latest_checkpoint(run)


def test_what_a_killed_writer_left_goes_with_its_checkpoint(tmp_path):
    _save(tmp_path, 1)
    for name in ('ckpt-1.data-00000-of-00001.tempstate9', 'ckpt-1.index.tempstate9'):
        (tmp_path / name).write_text('')
    _save(tmp_path, 2, keep=1)
    assert not list(tmp_path.glob('ckpt-1*'))
