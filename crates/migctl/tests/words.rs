//! Help, completions, the manual, colours.

mod machine;

use machine::Machine;
use snapbox::{assert_data_eq, str};

#[test]
fn help_tells_the_exit_codes() {
    let machine = Machine::bare();
    assert_data_eq!(
        machine.transcript("help"),
        str![[r#"
Cuts NVIDIA GPUs into MIG instances: lists, plans, creates and destroys them

Usage: migctl [OPTIONS] <COMMAND>

Commands:
  enable       Turn MIG mode on; says what is still needed before it is in force
  disable      Turn MIG mode off
  list         List GPUs, the instance types they offer, or how they are cut
  create       Create instances
  destroy      Destroy instances
  plan         Say whether and where instances, or a layout, would fit; without a GPU, too (--model)
  apply        Cut GPUs as a layout file says, changing as little as possible
  export       Write how the GPUs are cut as a layout that apply reads
  status       Draw each GPU's memory slices, who uses them, and what still fits
  capture      Write a models/ file from a GPU
  doctor       Check what commonly goes wrong, and say what to do
  completions  Print a completion script for a shell
  man          Print the manual page
  help         Print this message or the help of the given subcommand(s)

Options:
  -h, --help
          Print help (see a summary with '-h')

  -V, --version
          Print version

Global options:
      --gpuid <GPU>
          Which GPUs: index, UUID, PCI address, several separated by commas, or all. May be left out
          where there is one GPU; verbs that only read take all of them then

  -o, --output <FORMAT>
          How to write the answer

          Possible values:
          - table: Columns for people
          - json:  JSON, as docs/migctl.md describes it
          - yaml:  The same as YAML
          
          [default: table]

      --dry-run
          Say what would be done, and touch nothing

      --ignore-kubelet
          Do not ask the kubelet which pods hold instances; only the driver's word on processes
          counts then

      --nvml-library <FILE>
          The driver's libnvidia-ml.so.1 itself; by default it is looked for below the driver root,
          then by the loader
          
          [env: NVML_LIBRARY]

      --nvidia-driver-root <DIR>
          Where the driver's files are: / if it is installed on the host, the mounted root of the
          driver's container otherwise
          
          [env: NVIDIA_DRIVER_ROOT]
          [default: /]

      --container-driver-root <DIR>
          Where the driver root is seen from here, if that is another place: in the agent's pod
          
          [env: CONTAINER_DRIVER_ROOT]

      --proc-root <DIR>
          Where procfs is mounted
          
          [env: PROC_ROOT]
          [default: /proc]

      --sys-root <DIR>
          Where sysfs is mounted
          
          [env: SYS_ROOT]
          [default: /sys]

      --kubelet-root <DIR>
          The kubelet's root directory, where it tells which pod holds what
          
          [env: KUBELET_ROOT]
          [default: /var/lib/kubelet]

      --lock-file <FILE>
          Held while GPUs are changed, so that no two programs do so at once
          
          [env: MIG_LOCK_FILE]
          [default: /run/mig-agent/node.lock]

      --state-dir <DIR>
          Where the agent of this node writes down what it gave out and what is Unhealthy; what is
          not there is not told
          
          [env: STATE_DIR]
          [default: /run/mig-agent]

      --color <WHEN>
          Whether to colour messages; auto: on a terminal, unless NO_COLOR is set
          
          [default: auto]
          [possible values: auto, always, never]

Examples:
  migctl list gpu
  migctl --gpuid 0 enable
  migctl --gpuid 0 create instance --type 3g.20gb --placement 4
  migctl --gpuid 0 list config
  migctl plan --model A100-SXM4-40GB 3g.20gb 3g.20gb 1g.5gb
  migctl apply -f layout.yaml --dry-run

Exit codes:
  0    done; nothing to do is done, too
  1    failed: the driver, the kubelet or the system refused; what was done by then is said
  2    usage: an argument, a variable or a file's text is wrong
  3    does not fit on the GPU, or not at that place
  4    in use: by a process or a pod, which is named; or another program is changing the GPUs now
  5    not permitted: run as root, or with the capability that is named
  6    needs a reset of the GPU or a reboot before it is in force
  7    not found: no such GPU, instance type, instance, layout, model or file
  130  interrupted between two steps; what was done and what was not is said

Answers go to stdout, everything else to stderr.
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript("create instance -h"),
        str![[r#"
GPU instances, each with a compute instance, or compute instances in GPU instances that are there

Usage: migctl create instance [OPTIONS] --type <TYPES>

Options:
      --type <TYPES>       What to create, several separated by commas: 3g.20gb; 3g.20gb@4 (at
                           memory slice 4); 19 (the driver's id of a type); 1c.3g.20gb (a compute
                           instance, in a GPU instance with room, else in a new one)
      --placement <START>  At which memory slice it shall begin; by default where most can be
                           created afterwards
      --count <N>          So many of each [default: 1]
      --in <ID>            Create the compute instances in the GPU instance of this id
      --no-compute         Create GPU instances without compute instances
  -h, --help               Print help (see more with '--help')

Global options:
      --gpuid <GPU>      Which GPUs: index, UUID, PCI address, several separated by commas, or all.
                         May be left out where there is one GPU; verbs that only read take all of
                         them then
  -o, --output <FORMAT>  How to write the answer [default: table] [possible values: table, json,
                         yaml]
      --dry-run          Say what would be done, and touch nothing
      --ignore-kubelet   Do not ask the kubelet which pods hold instances; only the driver's word on
                         processes counts then
exit 0

"#]]
    );
    assert_data_eq!(
        machine.transcript(""),
        str![[r#"
! error: 'migctl' requires a subcommand but one was not provided
!   [subcommands: enable, disable, list, create, destroy, plan, apply, export, status, capture, doctor, completions, man, help]
! 
! For more information, try '--help'.
exit 2

"#]]
    );
    assert_data_eq!(
        machine.transcript("creat"),
        str![[r#"
! error: unrecognized subcommand 'creat'
! 
!   tip: a similar subcommand exists: 'create'
! 
! For more information, try '--help'.
exit 2

"#]]
    );
}

#[test]
fn completions_and_the_manual_are_printed() {
    let machine = Machine::bare();
    for (line, word) in [
        ("completions bash", "_migctl()"),
        ("completions zsh", "#compdef migctl"),
        ("completions fish", "complete -c migctl"),
        ("man", ".TH migctl"),
    ] {
        let output = machine.run(line);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains(word), "{line}: {text}");
    }
    assert!(machine.run("man --dir pages").status.success());
    let pages = std::fs::read_dir(machine.path("pages")).unwrap().count();
    assert!(pages > 12, "a page for each verb, not {pages}");
}

#[test]
fn colours_are_for_terminals_or_those_who_ask() {
    let machine = Machine::bare();
    let stderr = |line: &str| String::from_utf8(machine.run(line).stderr).unwrap();
    assert!(stderr("--color always plan --model none 1g.5gb").contains("\u{1b}["));
    assert!(!stderr("--color never plan --model none 1g.5gb").contains('\u{1b}'));
    assert!(!stderr("plan --model none 1g.5gb").contains('\u{1b}'), "no terminal, no colour");
}
