cargo fmt --all
