from pathlib import Path

from setuptools import find_packages, setup

# What only some users need; `import classy_gc` succeeds without any of it.
EXTRAS = {
    "examples": ["scikit-learn", "scipy", "matplotlib", "progressbar2"],
    "tensorboard": ["tensorboard"],
    "zero": ["fairscale"],
}
EXTRAS["test"] = sorted({package for packages in EXTRAS.values() for package in packages})
EXTRAS["test"] += ["pytest", "hypothesis", "ruff"]
# The frameworks that the core's optimizers are tested in; who uses one has it.
EXTRAS["test"] += ["accelerate", "hydra-core", "lightning", "mmengine", "pytorch_optimizer"]
EXTRAS["all"] = sorted({package for packages in EXTRAS.values() for package in packages})

setup(
    name="classy-gc",
    version="0.1.0",
    description="Gradient-centralization optimizers for Classy Vision",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["classy_gc", "classy_gc.*"]),
    install_requires=["torch>=2.9", "classy-vision>=0.7", "fvcore>=0.1.5"],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["classy-gc=classy_gc.commands:main"]},
)
