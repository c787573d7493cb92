"""Checkpoints: kept, fallen back on, and refused with a reason."""

import pytest
import tensorflow as tf

from ddsp.training import checkpoints, train_util


def _save(directory, *steps, keep=5):
    for step in steps:
        checkpoints.save(tf.train.Checkpoint(x=tf.Variable(float(step))), str(directory), step, keep)


def _read(found):
    def read(prefix):
        x = tf.Variable(0.0)
        tf.train.Checkpoint(x=x).read(prefix).assert_consumed()
        found.append(float(x))

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
    large = tf.train.Checkpoint(x=tf.Variable(tf.zeros([1 << 18])))
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
