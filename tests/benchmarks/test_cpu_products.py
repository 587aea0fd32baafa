"""The limit that CPU benchmarks compare with."""

from benchmarks.cpu_products import Products


def test_the_fastest_product_is_the_limit_and_never_falls() -> None:
    products = Products(((64, 64, 64),))
    products.measure("float32")
    first = products.gflops["float32"]
    for _ in range(3):
        products.measure("float32")
    assert products.gflops["float32"] >= first > 0
    products.gflops["float32"] = 200.0
    products.measure("bfloat16")
    assert products.share("float32", 150.0) == 0.75
    assert set(products.rounded()) == {"float32", "bfloat16"}
