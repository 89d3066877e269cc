# Every target installs what it needs first. `make` alone lists them.

.DEFAULT_GOAL := help
.PHONY: help demo test check fix bench bench-cli

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: node_modules/.package-lock.json ## generate an application from the packed tarball and run all of it
	@node scripts/demo.js && $(MAKE) --no-print-directory -C .demo/app dev-all

test: node_modules/.package-lock.json ## run every test: command line, templates, engine, end to end
	@node scripts/test.js

check: node_modules/.package-lock.json ## check format, lint, import boundaries, types, dead code
	@npm run --silent check

fix: node_modules/.package-lock.json ## fix format, and what the linter can fix
	@npm run --silent fix

bench: node_modules/.package-lock.json bench/node_modules/.package-lock.json ## compare the engine with a hand-written loop and other queues
	@npm run --silent bench -- --contestants all

bench-cli: node_modules/.package-lock.json ## compare the command line with create-vite and create-next-app
	@npm run --silent bench:cli

# Not `npm ci`: it refuses a lock file that was created where the registry had no binaries for other platforms.
node_modules/.package-lock.json: package.json package-lock.json templates/package.json templates/backend/package.json templates/frontend/package.json
	npm install --no-audit --no-fund
	@touch $@

bench/node_modules/.package-lock.json: bench/package.json bench/package-lock.json
	npm install --no-audit --no-fund --prefix bench
	@touch $@
