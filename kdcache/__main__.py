"""`python -m kdcache`: the same as the `kdcache` command."""

from kdcache.cli.app import main

if __name__ == "__main__":
    main()
