# Shortcuts; each is one line that works without just as well.

# Format, lint, types, front end, lock: what the commit hook and CI check
check:
    uv run --group dev python -m scripts.check

# Repair what the checks can repair, and write requirements.lock anew
fix:
    uv run --group dev python -m scripts.check --fix

# The whole test suite
test *options:
    uv run --group dev python -m scripts.test {{ options }}

# The suite without the browser on awkward dates (Linux): new-year, leap-day, clock-change, new-years-eve
dates *options:
    uv run --group dev python -m scripts.dates {{ options }}

# Build frontend/dist
assets:
    uv run --group dev python scripts/build_assets.py build

# Build frontend/dist again after every change
watch:
    uv run --group dev python scripts/build_assets.py watch

# Of the vault alone: python -m scripts.bench.vault (records a second), scripts.bench.unlock (passphrase to first page)
# How long a writer waits, beside the goals
bench *options:
    uv run --group dev python -m scripts.bench.latency {{ options }}

# Break things on purpose and print a JSON line for each kind, for hours; with --share 0.01 for minutes, or by name
torture *options:
    uv run --group dev python -m scripts.torture {{ options }}

# Pictures of every page and state, to look at: just pictures --to FOLDER
pictures *options:
    uv run --group dev python -m scripts.pictures {{ options }}

# The first day against the installed wheel
wheel:
    uv run --group dev python -m scripts.wheel

# The first day without a network (Linux, as root)
offline:
    uv run --group dev python -m scripts.offline

# Break the program in small ways and see whether a test notices (an hour); --count, --seed, --map FOLDER
mutants *options:
    uv run --group dev python -m scripts.mutants {{ options }}
