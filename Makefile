# Two commands are all a newcomer needs: `make run` and `make test`.
# Both create .venv, install what they need, and may be repeated.

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name) 2>/dev/null)))
VENV   ?= .venv
EXTRAS ?=
WRITE  ?=
COMMA  := ,
BIN    := $(VENV)/bin
EPOCHS_FLAG = $(if $(EPOCHS),--epochs=$(EPOCHS))

# Without CELEBA_DIR: synthetic faces and a quick training run. With it: real data.
CELEBA_DIR ?=
SAMPLE     := data/sample
ifeq ($(strip $(CELEBA_DIR)),)
SOURCE  := $(SAMPLE)
DATASET := data/sample-tfrecords
IMAGES  := 2400
CONFIG  ?= configs/quick.flags
else
SOURCE  := $(CELEBA_DIR)
DATASET := data/celeba-5000-tfrecords
IMAGES  := 5000
CONFIG  ?= configs/googlenet.flags
endif

# Where Beam's job servers are kept, for all checkouts.
JARS := $(or $(CELEBA_JARS),$(HOME)/.cache/celeba-attributes)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install run sample build train verify test test-marked engine-dask engine-jars engine-flink engine-spark faults bench bench-peers bench-step bench-gpu-box publish lint format clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo "  make run CELEBA_DIR=FOLDER   the same on 5,000 balanced images of real CelebA"
	@echo "  make install EXTRAS=gpu      with TensorFlow's CUDA libraries"

install: $(VENV)/.installed ## Create .venv and install everything

$(VENV)/.installed: setup.py constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python found."; echo "       Install Python 3.11 or newer, or name it: make PYTHON=/path/to/python"; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { echo "error: $(PYTHON) is not Python 3.11 to 3.13."; echo "       Name another: make PYTHON=/path/to/python3.11"; exit 2; }
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev$(if $(EXTRAS),$(COMMA)$(EXTRAS))]' --constraint constraints.txt
	$(BIN)/python -m pip check
	@touch $@

run: build train ## Sample data, TFRecords, training, evaluation, report

ifeq ($(strip $(CELEBA_DIR)),)
build: sample
sample: install ## Generate the synthetic faces into data/sample
	$(BIN)/python -m beam_pipelines.synthesize --output_dir=$(SAMPLE) --num_examples=3200 --seed=0
endif

build: install ## Write the TFRecords (from CELEBA_DIR, or from the sample)
	$(BIN)/python -m beam_pipelines.build --runner DirectRunner --celeba_dir="$(SOURCE)" --output_dir=$(DATASET) --num_examples=$(IMAGES) --overwrite

train: install ## Train on them with the options in CONFIG
	$(BIN)/python -m trainer.main --flagfile=$(CONFIG) --data_dir=$(DATASET) $(EPOCHS_FLAG)

verify: install ## Check the TFRecords against their manifest
	$(BIN)/python -m beam_pipelines.verify --dataset_dir=$(DATASET)

test: install ## Run the tests (under 10 minutes on 2 cores)
	$(BIN)/python -m pytest -n auto --dist worksteal

test-marked: install ## Run the slow tests and those of other Beam engines
	$(BIN)/python -m pytest -n auto --dist worksteal -m '(slow or engine) and not gpu'

engine-dask: install ## Run the tests of the build on Dask
	$(BIN)/python -m pytest -m 'not gpu' tests/engines/test_dask.py tests/engines/test_faults.py

engine-jars: $(JARS)/flink/job-server.jar $(JARS)/spark/job-server.jar

engine-flink: $(JARS)/flink/job-server.jar install ## Fetch Beam's job server for Flink, run its tests
	CELEBA_JARS="$(JARS)" $(BIN)/python -m pytest -m engine tests/engines/test_flink.py

engine-spark: $(JARS)/spark/job-server.jar install ## The same for Spark
	CELEBA_JARS="$(JARS)" $(BIN)/python -m pytest -m engine tests/engines/test_spark.py

# Maven fetches them once; the checksums of all jars are in engines/.
$(JARS)/%/job-server.jar: engines/pom.xml engines/%/pom.xml engines/%/SHA256SUMS
	@command -v java > /dev/null && command -v mvn > /dev/null || { echo "error: no Java or no Maven here."; echo "       Install Java 17 and Maven, for example: apt-get install openjdk-17-jdk-headless maven"; exit 2; }
	rm -rf "$(@D)"
	mvn --quiet --batch-mode --file engines/$*/pom.xml package -Djars="$(JARS)"
	@cd "$(@D)/lib" && sha256sum --quiet --check "$(CURDIR)/engines/$*/SHA256SUMS" || { rm -f "$@"; echo "error: a jar differs from engines/$*/SHA256SUMS."; echo "       Fetch them again, or see what changed."; exit 5; }
	@touch "$@"

faults: install ## Kill programs, fill the disk, damage files; an hour or more
	$(BIN)/python -m tests.faults

# Without DATA_DIR: the dataset that `make build` writes, written first if need be.
bench: install ## Stage breakdown: rates, upper bounds, the flag to change
	@test -n "$(DATA_DIR)" || test -f $(DATASET)/manifest.json || $(MAKE) build
	$(BIN)/python -m benchmarks --data_dir="$(or $(DATA_DIR),$(DATASET))" $(if $(BUDGET),--budget=$(BUDGET))

bench-peers: install $(VENV)-peers/.installed ## Compare build, input and warp with other libraries
	$(BIN)/python -m benchmarks.build --num_images=20000 --smaller=2000 --peers_python=$(VENV)-peers/bin/python $(WRITE)
	$(BIN)/python -m benchmarks.input --peers_python=$(VENV)-peers/bin/python $(WRITE)
	$(BIN)/python -m benchmarks.warp $(WRITE)

bench-step: install $(VENV)-peers/.installed ## Compare the train step with Keras and PyTorch, then by batch size
	$(BIN)/python -m benchmarks.step --models=all --sizes=128 --precision=auto,float32 --peers_python=$(VENV)-peers/bin/python $(WRITE)
	$(BIN)/python -m benchmarks.step --models=googlenet --sizes=96 --precision=auto --batch_sizes=8,16,32,64 --cases=ours $(WRITE)

# For a GPU machine without a network that has JAX, PyTorch and torchvision.
GPU_BOX := data/gpu-box
GPU_PYTHON ?= 3.12
bench-gpu-box: install ## Collect the packages that `python -m benchmarks.gpu` needs there
	$(BIN)/python -m pip download --quiet --no-deps --only-binary=:all: --implementation cp --python-version $(GPU_PYTHON) --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --constraint constraints.txt --dest $(GPU_BOX) keras optree simplejpeg absl-py rich h5py packaging pydantic pydantic-core annotated-types typing-extensions typing-inspection safetensors

$(VENV)-peers/.installed: benchmarks/requirements-peers.txt
	"$(PYTHON)" -m venv --clear $(VENV)-peers
	$(VENV)-peers/bin/python -m pip install --quiet --requirement $<
	$(VENV)-peers/bin/python -m pip check
	@touch $@

publish: install ## Put the newest results of benchmarks into the README
	$(BIN)/python -m benchmarks.publish

lint: install ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove .venv and caches; data/ and runs/ stay
	rm -rf $(VENV) .pytest_cache .ruff_cache build *.egg-info
