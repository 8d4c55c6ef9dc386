"""The GGUF reader against PyPI gguf: metadata and every tensor's values, of the demo model's file and of one made here."""

import json

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file

from checkpoint_oracle import demo_gguf, probe, probed


def oracle_tensors(path):
    reader = gguf.GGUFReader(path)
    return {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(
            [int(extent) for extent in reversed(tensor.shape)]
        )
        for tensor in reader.tensors
    }


def oracle_metadata(path):
    fields = gguf.GGUFReader(path).fields
    return {key: field.contents() for key, field in fields.items() if not key.startswith("GGUF.")}


def assert_same_tensors(path, folder):
    metadata = json.loads(probed("gguf", path, folder / "ours.safetensors"))
    ours, theirs = load_file(folder / "ours.safetensors"), oracle_tensors(path)
    assert sorted(ours) == sorted(theirs)
    for name, values in theirs.items():
        assert ours[name].shape == values.shape, name
        np.testing.assert_array_equal(ours[name], values.astype(np.float32), err_msg=name)
    return metadata


def test_reads_the_demo_models_file_as_pypi_gguf_does(tmp_path):
    metadata = assert_same_tensors(demo_gguf(), tmp_path)
    assert metadata == oracle_metadata(demo_gguf())
    assert len(metadata["tokenizer.ggml.tokens"]) == 49152


def write_sample(path, types, alignment=None):
    random = np.random.default_rng(5)
    writer = gguf.GGUFWriter(path, "sample")
    if alignment:
        writer.add_custom_alignment(alignment)
    writer.add_uint8("u8", 200)
    writer.add_int8("i8", -100)
    writer.add_uint16("u16", 60000)
    writer.add_int16("i16", -30000)
    writer.add_uint32("u32", 4_000_000_000)
    writer.add_int32("i32", -2_000_000_000)
    writer.add_uint64("u64", 2**63 + 1)
    writer.add_int64("i64", -(2**63))
    writer.add_float32("f32", 0.1)
    writer.add_float64("f64", 0.1)
    writer.add_bool("bool", True)
    writer.add_string("string", "größer\n\"quoted\"")
    writer.add_array("integers", [1, -2, 3])
    writer.add_array("floats", [0.5, -0.25])
    writer.add_array("booleans", [True, False])
    writer.add_array("strings", ["a", "", "c"])
    for i, quantization in enumerate(types):
        values = random.standard_normal((3 + i, 2, 64)).astype(np.float32)
        stored = gguf.quants.quantize(values, quantization)
        writer.add_tensor(f"t{i}.{quantization.name}", stored, raw_dtype=quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("alignment", [None, 8, 4096])
def test_reads_every_value_type_and_supported_tensor_type(tmp_path, alignment):
    types = gguf.GGMLQuantizationType
    path = tmp_path / "sample.gguf"
    write_sample(path, [types.F32, types.F16, types.Q4_1, types.Q8_0], alignment)
    metadata = assert_same_tensors(path, tmp_path)
    theirs = oracle_metadata(path)
    assert metadata == theirs


@pytest.mark.parametrize("name", ["Q4_0", "Q5_1", "BF16", "TQ2_0"])
def test_refuses_other_tensor_types_by_name(tmp_path, name):
    path = tmp_path / "sample.gguf"
    write_sample_type = gguf.GGMLQuantizationType[name]
    writer = gguf.GGUFWriter(path, "sample")
    values = np.zeros((2, 256), np.float32)
    writer.add_tensor("t", gguf.quants.quantize(values, write_sample_type), raw_dtype=write_sample_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    done = probe("gguf", path, tmp_path / "ours.safetensors")
    assert done.returncode == 1
    assert f'tensor "t": got type {name}, want' in done.stderr
