import re
from pathlib import Path

from setuptools import Extension, find_namespace_packages, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

# What only some users need; `import classy_gc` succeeds without any of it.
EXTRAS = {
    "examples": ["scikit-learn", "scipy", "statsmodels", "matplotlib", "progressbar2"],
    "cluster": ["submitit"],
    "tensorboard": ["tensorboard"],
    "wandb": ["wandb"],
    "mlflow": ["mlflow"],
    "zero": ["fairscale"],
    "polygons": [
        *("shapely>=2.1", "scikit-image", "scipy", "Pillow", "tqdm"),
        *("rasterio", "geopandas", "matplotlib"),  # files and pictures
    ],
}
EXTRAS["all"] = sorted({package for packages in EXTRAS.values() for package in packages})
EXTRAS["test"] = [*EXTRAS["all"], "pytest", "pytest-xdist", "hypothesis", "ruff", "mypy", "timm"]
EXTRAS["test"] += ["build", "twine"]
# For its footprints of Bubeneč, the example of classy_gc/polygons.
EXTRAS["test"] += ["momepy"]
# The frameworks that the core's optimizers are tested in. Their users have them already.
EXTRAS["test"] += ["accelerate", "hydra-core", "lightning", "mmengine", "pytorch_optimizer"]
EXTRAS["test"] += ["torch-optimi"]

# The one-pass kernels: C without a header of Python or torch, loaded by its path. Where it does
# not compile, the package installs without it. Nothing is contracted to fused multiply-adds, so
# that vectorized and scalar code, and so every number of threads, give the same bits.
KERNEL = "classy_gc.core.kernels._rows"
FLAGS = ["-O3", "-g0", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
# The first of each list that compiles: OpenMP, and a version of the loops for each vector unit.
OPTIONAL_FLAGS = [
    ["-fopenmp"],
    [
        '-DTARGETS="default","arch=x86-64-v3","arch=x86-64-v4"',
        '-DTARGETS="default","avx2","avx512f"',
    ],
]


class BuildKernel(build_ext):
    """Takes the flags that this compiler knows."""

    def build_extension(self, ext):
        for flags in OPTIONAL_FLAGS:
            flag = next(filter(self._compiles, flags), None)
            if flag is not None:
                ext.extra_compile_args.append(flag)
                ext.extra_link_args.append(flag)
        super().build_extension(ext)

    def _compiles(self, flag):
        source = Path(self.build_temp, "flags.c").absolute()
        source.parent.mkdir(parents=True, exist_ok=True)
        clones = "__attribute__((target_clones(TARGETS)))"
        source.write_text(
            f"#ifdef TARGETS\n{clones}\n#endif\nint f(int x) {{ return x; }}\n"
            "int main(void) { return f(0); }\n"
        )
        try:
            # The object goes beside the source, not below the current folder.
            objects = self.compiler.compile(
                [str(source)], output_dir="/", extra_postargs=[flag, "-Werror"]
            )
            self.compiler.link_executable(
                objects, str(source.with_suffix("")), extra_postargs=[flag]
            )
        except (CompileError, LinkError):
            return False
        return True

    def get_export_symbols(self, ext):
        return [f"classy_gc_{x}" for x in ("memory", "step", "means")]


HERE = Path(__file__).parent
(VERSION,) = re.findall('__version__ = "(.*)"', (HERE / "classy_gc/__init__.py").read_text())
# The front page, for where its pictures and the pages that it links to are not.
ABOUT = (HERE / "README.md").read_text(encoding="utf-8")
ABOUT = re.sub(r"!\[[^]]*\]\((?!http)[^)]*\)\n*", "", ABOUT)
ABOUT = re.sub(r"\[([^]]*)\]\((?!http)[^)]*\)", r"\1", ABOUT)
# A folder beside the package here, and one inside it where it is installed.
CONFIGS = find_namespace_packages(include=["configs", "configs.*"], exclude=["*.__pycache__"])

setup(
    name="classy-gc",
    version=VERSION,
    description="Gradient-centralization optimizers for Classy Vision",
    long_description=ABOUT,
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    keywords="gradient centralization, optimizer, PyTorch, Classy Vision, deep learning",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: C",
        "Programming Language :: Python :: 3",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in (10, 11, 12, 13)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    project_urls={
        "Paper": "https://arxiv.org/abs/2004.01461",
        "Classy Vision": "https://classyvision.ai",
    },
    python_requires=">=3.10",
    packages=[
        *find_packages(include=["classy_gc", "classy_gc.*"]),
        *(f"classy_gc.{folder}" for folder in CONFIGS),
    ],
    package_dir={"classy_gc.configs": "configs"},
    package_data={
        "classy_gc": ["py.typed", "*/README.md"],
        "classy_gc.core.kernels": ["*.c", "*.h"],
        **{f"classy_gc.{folder}": ["*.*"] for folder in CONFIGS},
    },
    ext_modules=[
        Extension(
            KERNEL,
            ["classy_gc/core/kernels/rows.c"],
            depends=["classy_gc/core/kernels/update.h"],
            extra_compile_args=FLAGS,
            py_limited_api=True,
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildKernel},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
    install_requires=["torch>=2.9", "classy-vision>=0.7", "fvcore>=0.1.5"],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["classy-gc=classy_gc.commands:main"]},
)
