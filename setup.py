"""Installation. The base is the build, so that Beam workers stay small."""

from setuptools import find_packages, setup

BUILD = [
    "absl-py>=2.3,<3",
    "apache-beam>=2.77,<3",
    # Beam writes TFRecords' checksums with it; plain apache-beam cannot.
    "google-crc32c>=1.7,<2",
    "jinja2>=3.1,<4",  # the pages of both reports
    "numpy>=2.1,<3",
    "pillow>=12.1,<13",  # EXIF and resizing
    "pyarrow>=18,<26",  # reads the annotation files
    "pydantic>=2.10,<3",  # checks the types of what is in JSON files
    "simplejpeg>=1.8,<2",
    "tqdm>=4.66,<5",
    "typing-extensions>=4.12,<5",  # its TypedDict, which pydantic needs before 3.12
]
REPORT = ["matplotlib>=3.10,<4"]  # the charts of both reports
TRAIN = [
    *REPORT,
    "keras>=3.15,<3.16",
    "pandas>=2.3,<4",
    "pyyaml>=6,<7",  # the model card's header
    "safetensors>=0.6,<1",  # torchvision's parameters
    "scikit-learn>=1.7,<2",
    "scipy>=1.15,<2",
    "tensorboard>=2.20,<2.22",
    "tensorflow>=2.21,<2.22",
    "tensorflow-datasets>=4.9.9,<5",
]
EXPORT = [
    "ai-edge-litert>=2.3,<3",
    "onnx>=1.23,<1.24",  # tf2onnx sets no upper bound
    "onnxruntime>=1.30,<2",
    "tf2onnx>=1.17,<1.18",
]
DASK = ["apache-beam[dask]>=2.77,<3", "dask>=2026.8,<2027", "distributed>=2026.8,<2027"]
ALIGN = ["mtcnn>=1.0,<1.1"]  # finds faces and their landmarks
DEMO = ["fastapi>=0.136,<1", "python-multipart>=0.0.20,<0.1", "uvicorn>=0.38,<1"]
DEV = [
    *DASK,  # the tests of the build on an engine
    "hypothesis>=6.140,<7",
    "ipykernel>=7,<8",  # runs the notebook of docs/
    "jax>=0.10,<0.11",  # the models must also run on Keras' JAX backend
    "nbclient>=0.10,<1",
    "playwright>=1.55,<2",  # drives a browser that is already installed
    "psutil>=7,<8",  # memory and processor time of the build's benchmark
    "pytest>=8.4,<10",
    "pytest-xdist>=3.8,<4",
    "ruff>=0.17,<0.18",
    "setuptools>=77,<81",  # builds the wheel that a test runs the workers from
]
GCP = ["apache-beam[gcp]>=2.77,<3"]
GPU = ["tensorflow[and-cuda]>=2.21,<2.22"]

setup(
    name="celeba-attributes",
    version="0.1.0",
    description="CelebA to trained, honestly evaluated face-attribute classifiers",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(
        include=["schemas*", "support*", "beam_pipelines*", "trainer*", "benchmarks*"]
    ),
    package_data={
        "beam_pipelines.sample": ["*.csv"],
        "support": ["templates/*"],
        "beam_pipelines.reporting": ["templates/*"],
        "trainer.reporting": ["templates/*"],
        "trainer.demo": ["templates/*"],
    },
    install_requires=BUILD,
    extras_require={
        "report": REPORT,
        "train": TRAIN,
        "gpu": TRAIN + GPU,
        "gcp": GCP,
        "dask": DASK,
        "export": TRAIN + EXPORT,
        "align": TRAIN + ALIGN,
        "demo": TRAIN + DEMO,
        "dev": TRAIN + EXPORT + ALIGN + DEMO + DEV,
        "all": TRAIN + EXPORT + ALIGN + DEMO + DEV + GCP,
    },
)
