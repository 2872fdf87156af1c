# Each target sets up what it needs, once: a virtual environment is made anew only when its lock changes.
PYTHON ?= python3
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check --require-hashes
MAKEFLAGS += --no-print-directory # what a target prints can be piped on, also where make runs it within make

.PHONY: run caption model original adopt bench soak image invoke picture screenshots test lint test-deps lock

# The whole way on this machine; PHOTOS=path for your own photos, ONCE=1 to stop after the captions.
run: .venv/run.stamp
	@.venv/bin/python -m infra

# make caption IMAGE=photo.jpg, or IMAGE="a.jpg b.png", or IMAGE=- for standard input: one JSON line an image.
caption: .venv/run.stamp
	@test -n '$(IMAGE)' || { echo 'IMAGE="a.jpg b.png" is missing' >&2; exit 2; }
	@if [ -e '$(IMAGE)' ]; then .venv/bin/python -m function '$(IMAGE)'; else .venv/bin/python -m function $(IMAGE); fi

# The model that ships, from photos with captions: make model DATA=folder. Cut off, it goes on where it stopped.
# Two ways from the frozen stage, three runs of self-critical training, the average of their weights, its decoder in int8.
CONVERT = .venv-convert/bin/python -m convert
TRAIN = $(CONVERT) train --resume --data '$(DATA)'
TAIL = $(TRAIN) --depth tail
CIDER = $(TAIL) --reward cider --encoder-rate 0.2
model: .venv-convert/run.stamp
	@test -n '$(DATA)' || { echo "DATA=folder is missing: photos and captions in Flickr8k's format" >&2; exit 2; }
	$(TRAIN) --out .runs/frozen
	$(TAIL) --out .runs/tail --from .runs/frozen --epochs 7 --learning-rate 4e-4 --encoder-rate 0.25 --dropout 0.5
	$(CIDER) --out .runs/cider --from .runs/tail --epochs 9 --patience 1 --learning-rate 1.5e-4 --dropout 0.1
	$(CIDER) --out .runs/settled --from .runs/cider --epochs 5 --patience 5 --learning-rate 1e-4 --final-rate 0.02 \
		--dropout 0.4
	$(TAIL) --out .runs/words --from .runs/frozen --epochs 9 --patience 9 --views 7 --learning-rate 5e-4 \
		--final-rate 0.02 --encoder-rate 0.25 --dropout 0.5
	for seed in 2 3; do \
		$(CIDER) --out .runs/cider-$$seed --from .runs/words --epochs 5 --patience 5 --views 7 \
			--learning-rate 1.5e-4 --final-rate 0.02 --dropout 0.4 --seed $$seed || exit 1; \
	done
	$(TAIL) --out .runs/average --from .runs/settled .runs/cider-2 .runs/cider-3 --epochs 0
	$(CONVERT) results $(addprefix .runs/,frozen tail cider settled words cider-2 cider-3 average)
	$(CONVERT) export --model .runs/average --data '$(DATA)' --out .runs/exact --name $(MODEL) --length-exponent 0.7
	$(CONVERT) quantise --bundle .runs/exact --out function/bundle --int8 events/photos --part decoder
	$(CONVERT) calibrate --data '$(DATA)' --diagram function/bundle/reliability.svg
	$(CONVERT) evaluate --data '$(DATA)' --keep
MODEL = flickr8k-lite2-lstm-3

# The model that everybody builds, measured as this one is: Xception's pooled features and an LSTM, merged.
original: .venv-convert/run.stamp
	@test -n '$(DATA)' || { echo "DATA=folder is missing: photos and captions in Flickr8k's format" >&2; exit 2; }
	$(TRAIN) --out .runs/original --encoder xception --decoder merge --views 0 --epochs 12 --patience 4 --units 256 \
		--word-units 256 --dropout 0.5 --minimum-count 1 --longest 33 --label-smoothing 0 --weight-decay 0 \
		--final-rate 1 --average 0
	$(CONVERT) export --model .runs/original --data '$(DATA)' --out .runs/original-bundle --name original
	for beams in 1 3; do \
		$(CONVERT) evaluate --bundle .runs/original-bundle --data '$(DATA)' --beams $$beams --keep \
			--out .runs/original-$$beams.json || exit 1; \
	done

# This service beside the original's way and what people pick instead, on one core: REPEATS=3, or TABLE=1 for the last.
bench: .venv/test.stamp .venv-sam/run.stamp $(if $(TABLE),,.venv-convert/run.stamp .venv-bench/run.stamp)
	@.venv/bin/python -m infra.bench $(if $(TABLE),--table) $(REPEATS:%=--repeats %)

# Uploads, replacements and removals by the thousand, while all goes wrong that can: UPLOADS=3000 SEED=1
soak: .venv/run.stamp
	@.venv/bin/python -m infra.soak

# An existing bucket tells EventBridge of its photos, and lets the page at ORIGIN use it: make adopt BUCKET=… ORIGIN=…
adopt: .venv/run.stamp
	@test -n '$(BUCKET)' || { echo 'BUCKET=name is missing' >&2; exit 2; }
	@.venv/bin/python -m infra.adopt_bucket '$(BUCKET)' $(if $(ORIGIN),--origin '$(ORIGIN)')

# The container; BASE_IMAGE=… for another base than AWS's: infra/base_image.sh makes one where no registry can be reached.
image:
	BUILDX_NO_DEFAULT_ATTESTATIONS=1 infra/docker.sh docker build --tag captions \
		$(if $(BASE_IMAGE),--build-arg BASE_IMAGE='$(BASE_IMAGE)') function # Lambda takes no images with attestations

# What the container makes of an event, by `sam local invoke`: make invoke EVENT=events/direct-image.json
invoke: .venv/run.stamp .venv-sam/run.stamp
	@test -n '$(EVENT)' || { echo 'EVENT=events/direct-image.json is missing' >&2; exit 2; }
	@infra/docker.sh .venv/bin/python -m infra.invoke '$(EVENT)'

# The pictures in the README: of captions, and of the page.
picture: .venv/run.stamp
	.venv/bin/python -m infra.picture

screenshots: .venv/test.stamp
	.venv/bin/python -m infra.screenshots

test: lint .venv-convert/test.stamp .venv-localstack/run.stamp infra/dynalite/node_modules
	.venv/bin/python -m pytest --ignore tests/convert
	.venv-convert/bin/python -m pytest --confcutdir tests/convert tests/convert

TEMPLATES = template.yaml infra/sign-in.yaml infra/sweep.yaml infra/watch.yaml
lint: .venv/test.stamp .venv-sam/run.stamp
	.venv/bin/ruff check .
	.venv/bin/mypy function infra
	.venv/bin/cfn-lint $(TEMPLATES)
	SAM_CLI_TELEMETRY=0 AWS_DEFAULT_REGION=us-east-1 .venv-sam/bin/sam validate --lint --template template.yaml
	.venv-sam/bin/checkov --file $(TEMPLATES) --framework cloudformation --compact --quiet --skip-download

# What some tests need beyond Python, each as command:package. Java is for METEOR's scorer, chromium for the page, npm
# for dynalite, the others are for a Docker engine and a base image. Tests that miss one say so, and are skipped.
TEST_DEPS = java:default-jre-headless dockerd:docker.io iptables:iptables debootstrap:debootstrap \
	chromium:chromium npm:npm
test-deps:
	@missing=$$(for dep in $(TEST_DEPS); do command -v $${dep%:*} >/dev/null || echo $${dep#*:}; done); \
	if [ -z "$$missing" ]; then echo 'all is here'; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing; \
	else echo "skipped: installing" $$missing "takes apt-get and root"; fi

# Locks anew from the requirements.in files; the later ones agree with those before them.
lock: | .venv-lock
	@for name in function/requirements infra/requirements infra/sam-requirements infra/base-requirements \
			infra/localstack-requirements tests/requirements convert/requirements; do \
		(cd $${name%/*} && CUSTOM_COMPILE_COMMAND='make lock' ../.venv-lock/bin/pip-compile --quiet --upgrade \
			--allow-unsafe --strip-extras --generate-hashes --no-emit-index-url --no-emit-trusted-host \
			--no-emit-find-links --no-emit-options --output-file $${name#*/}.txt $${name#*/}.in) || exit 1; \
	done
	@cd infra/dynalite && npm update --silent --package-lock-only --omit-lockfile-registry-resolved=true

.venv/run.stamp: function/requirements.txt infra/requirements.txt | .venv
	@echo 'setting up .venv …' >&2
	@.venv/bin/python $(PIP_INSTALL) $(^:%=-r %) >&2
	@touch $@

.venv/test.stamp: tests/requirements.txt infra/base-requirements.txt .venv/run.stamp
	@echo 'setting up the tests in .venv …' >&2
	@.venv/bin/python $(PIP_INSTALL) -r tests/requirements.txt -r infra/base-requirements.txt >&2
	@touch $@

.venv-sam/run.stamp: infra/sam-requirements.txt | .venv-sam
	@echo 'setting up .venv-sam …' >&2
	@.venv-sam/bin/python $(PIP_INSTALL) --no-deps -r $< >&2 # all are in the lock; pip stumbles over their extras
	@touch $@

infra/dynalite/node_modules: infra/dynalite/package-lock.json
	@if command -v npm >/dev/null; then cd $(@D) && npm ci --silent --no-audit --no-fund && touch node_modules; \
	else echo 'skipped: dynalite takes npm, which make test-deps installs' >&2; fi

.venv-localstack/run.stamp: infra/localstack-requirements.txt | .venv-localstack
	@echo 'setting up .venv-localstack …' >&2
	@.venv-localstack/bin/python $(PIP_INSTALL) -r $< >&2
	@touch $@

# PyTorch is another build on each kind of machine, so no hash is locked.
.venv-bench/run.stamp: infra/bench/requirements.txt | .venv-bench
	@echo 'setting up .venv-bench …' >&2
	@.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check -r $< >&2
	@touch $@

.venv-convert/run.stamp: function/requirements.txt convert/requirements.txt convert/bare-requirements.txt | .venv-convert
	@echo 'setting up .venv-convert …' >&2
	@.venv-convert/bin/python $(PIP_INSTALL) -r function/requirements.txt -r convert/requirements.txt >&2
	@.venv-convert/bin/python $(PIP_INSTALL) --no-deps -r convert/bare-requirements.txt >&2
	@touch $@

.venv-convert/test.stamp: tests/requirements.txt .venv-convert/run.stamp
	@.venv-convert/bin/python $(PIP_INSTALL) -r tests/requirements.txt >&2
	@touch $@

.venv-lock:
	@$(PYTHON) -m venv $@
	@$@/bin/python -m pip install --quiet 'pip-tools==7.*'

.venv .venv-bench .venv-convert .venv-localstack .venv-sam:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		f"Python 3.11 or newer is needed, $(PYTHON) is {sys.version.split()[0]}: try make PYTHON=python3.12 …")'
	@$(PYTHON) -m venv $@
