"""TFRecord files and Examples, against TensorFlow."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddsp.io.dataset import DatasetError
from pipelines.records import RecordWriter, decode_example, encode_example, read_examples, read_records

FEATURES = {'audio': np.linspace(-1, 1, 300), 'f0_hz': np.array([220.0]), 'empty': np.zeros(0)}


def write(path, examples):
    writer = RecordWriter(path)
    for example in examples:
        writer.write(example)
    return writer.close()


def test_tensorflow_reads_what_is_written(tmp_path):
    import tensorflow as tf

    write(tmp_path / 'a', [FEATURES, {'audio': [1.0, 2.0]}])
    messages = [record.numpy() for record in tf.data.TFRecordDataset(str(tmp_path / 'a'))]
    example = tf.train.Example.FromString(messages[0])
    assert sorted(example.features.feature) == ['audio', 'empty', 'f0_hz']
    for name, values in FEATURES.items():
        np.testing.assert_array_equal(example.features.feature[name].float_list.value, np.float32(values))
    parsed = tf.io.parse_single_example(messages[1], {'audio': tf.io.FixedLenFeature([2], tf.float32)})
    assert parsed['audio'].numpy().tolist() == [1.0, 2.0]


def test_what_tensorflow_writes_is_read(tmp_path):
    import tensorflow as tf

    floats = tf.train.Feature(float_list=tf.train.FloatList(value=[0.5, -0.5]))
    others = {
        'label': tf.train.Feature(bytes_list=tf.train.BytesList(value=[b'x'])),
        'id': tf.train.Feature(int64_list=tf.train.Int64List(value=[7])),
    }
    example = tf.train.Example(features=tf.train.Features(feature={'audio': floats, **others}))
    with tf.io.TFRecordWriter(str(tmp_path / 'a')) as writer:
        writer.write(example.SerializeToString())
    (found,) = read_examples(tmp_path / 'a')
    assert list(found) == ['audio']
    assert found['audio'].tolist() == [0.5, -0.5]


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=20), st.lists(st.floats(width=32, allow_nan=False), max_size=300), max_size=5
    )
)
def test_any_features_come_back(features):
    decoded = decode_example(encode_example({name: np.array(v, np.float32) for name, v in features.items()}))
    assert {name: list(values) for name, values in decoded.items()} == features


def test_records_can_be_taken_back(tmp_path):
    writer = RecordWriter(tmp_path / 'a')
    writer.write({'x': [1.0]})
    mark = writer.mark()
    writer.write({'x': [2.0]})
    writer.rewind(mark)
    writer.write({'x': [3.0]})
    assert writer.examples == 2
    size, digest = writer.close()
    assert size == (tmp_path / 'a').stat().st_size
    assert [example['x'][0] for example in read_examples(tmp_path / 'a')] == [1.0, 3.0]
    assert digest == write(tmp_path / 'b', [{'x': [1.0]}, {'x': [3.0]}])[1]


@pytest.mark.parametrize(('position', 'text'), [(3, 'record 0'), (40, 'in record 0'), (-3, 'in record 1')])
def test_damage_names_the_file_and_the_record(tmp_path, position, text):
    write(tmp_path / 'shard', [{'x': np.arange(50.0)}] * 2)
    data = bytearray((tmp_path / 'shard').read_bytes())
    data[position] ^= 1
    (tmp_path / 'shard').write_bytes(data)
    with pytest.raises(DatasetError, match=f'shard is damaged.*{text}'):
        list(read_records(tmp_path / 'shard'))
    (tmp_path / 'shard').write_bytes(data[:-5])
    with pytest.raises(DatasetError, match='shard is damaged'):
        list(read_records(tmp_path / 'shard'))
