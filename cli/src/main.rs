//! `ferrolb`: what operators do by hand.

fn main() -> anyhow::Result<()> {
    ferrolb_cli::command::run()
}
