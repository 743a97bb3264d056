//! A block of code, and what is to be done with it.

/// One block between fences.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fence {
    /// Where it begins.
    pub line: usize,
    /// What stands behind the backticks.
    pub info: String,
    /// The fake machine that begins here.
    pub scene: Option<String>,
    /// What stands in it.
    pub text: String,
}

/// A command and the output that is shown for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command {
    /// As a shell gets it, lines joined.
    pub line: String,
    /// As the page writes it.
    pub written: String,
    /// What the page says that it prints.
    pub output: String,
}

/// What keeps commands from being run by a test.
pub const NEEDS: [&str; 7] =
    ["needs-build", "needs-cluster", "needs-docker", "needs-gpu", "needs-helm", "needs-network", "needs-root"];

impl Fence {
    /// Whether it holds commands.
    pub fn has_commands(&self) -> bool {
        self.info.split(' ').next() == Some("console")
    }

    /// What a test lacks to run it.
    pub fn needs(&self) -> Vec<&str> {
        self.info.split(' ').skip(1).collect()
    }

    /// Its commands; what stands before the first is an error of the page, and comes as a command without a line.
    pub fn commands(&self) -> Vec<Command> {
        let mut commands: Vec<Command> = Vec::new();
        let mut goes_on = false;
        for line in self.text.lines() {
            let begins = line.strip_prefix("$ ");
            let continued = if goes_on { Some(line) } else { line.strip_prefix("> ") };
            match (begins, continued, commands.last_mut()) {
                (_, Some(rest), Some(command)) => {
                    command.line.push('\n');
                    command.line.push_str(rest);
                    command.written.push_str(line);
                    command.written.push('\n');
                    goes_on = rest.ends_with('\\');
                }
                (Some(begin), _, _) => {
                    commands.push(Command {
                        line: begin.to_owned(),
                        written: format!("{line}\n"),
                        output: String::new(),
                    });
                    goes_on = begin.ends_with('\\');
                }
                (None, _, Some(command)) => {
                    command.output.push_str(line);
                    command.output.push('\n');
                }
                (None, _, None) => {
                    commands.push(Command { output: format!("{line}\n"), ..Command::default() });
                }
            }
        }
        commands
    }
}
