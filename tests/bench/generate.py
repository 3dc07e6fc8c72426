"""Pipeline files of any size, for the figures of the compiler: as people write them, only more."""
import os

HEAD = """\
stages: [build, test, deploy]
workflow:
  rules:
    - if: $CI_PIPELINE_SOURCE == "merge_request_event"
      when: never
    - if: $CI_COMMIT_BRANCH
default:
  interruptible: true
  retry: 1
  tags: [linux]
variables:
  ARCH: x86_64
  TARGET: release
  IMAGE: registry.example/$CI_PROJECT_PATH/builder
  DEPLOY_TO: staging-$CI_COMMIT_REF_SLUG
.base:
  before_script:
    - echo "on $ARCH"
    - ./prepare --target "$TARGET"
  artifacts:
    paths: [out/]
    expire_in: 1 week
.rules:
  rules:
    - if: $CI_COMMIT_TAG =~ /^v\\d+/
      variables: {TARGET: tagged}
    - if: $CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH
    - changes: ["src/**/*.c"]
      when: on_success
.build:
  extends: [.base, .rules]
  stage: build
.test:
  extends: [.base, .rules]
  stage: test
  allow_failure: true
"""

BUILD = """\
build {i}:
  extends: .build
  variables: {{COMPONENT: "c{i}", OUTPUT: "out/$COMPONENT"}}
  script: ["make -C $COMPONENT", "install $OUTPUT"]
"""

TEST = """\
test {i}:
  extends: .test
  needs: ["build {need}"]
  variables: {{SUITE: "s{i}"}}
  script:
    - run-tests "$SUITE" --shard {i}
"""

MATRIX = """\
matrix {i}:
  extends: .test
  needs: ["build {need}"]
  parallel:
    matrix:
      - OS: [debian, fedora]
        DB: [lmdb, none]
  script: ["run-tests --os $OS --db $DB"]
"""

DEPLOY = """\
deploy {i}:
  extends: .rules
  stage: deploy
  needs:
    - job: "build {need}"
      artifacts: false
    - "test {need}"
  resource_group: $DEPLOY_TO
  script: ["deploy c{need} to $DEPLOY_TO"]
"""


def write(folder, path, text):
    path = os.path.join(folder, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="ascii") as f:
        f.write(text)


def jobs(folder, count):
    """One file that makes `count` jobs: extends, rules, variables, needs, matrices of four jobs."""
    builds = max(count // 3, 1)
    tests = max((count - builds) // 2, 1)
    matrices = tests // 8
    tests -= 4 * matrices
    parts = [HEAD]
    parts += [BUILD.format(i=i) for i in range(builds)]
    parts += [MATRIX.format(i=i, need=i % builds) for i in range(matrices)]
    parts += [TEST.format(i=i, need=i % builds) for i in range(tests)]
    parts += [DEPLOY.format(i=i, need=i % min(builds, tests))
              for i in range(count - builds - tests - 4 * matrices)]
    write(folder, ".gitlab-ci.yml", "".join(parts))


def includes(folder, count):
    """`count` included files of a job each, which all extend what the root file defines."""
    root = "include:\n" + "".join(f"  - local: ci/part{i}.yml\n" for i in range(count))
    write(folder, ".gitlab-ci.yml", root + ".base: {before_script: [echo begin]}\n")
    for i in range(count):
        write(folder, f"ci/part{i}.yml",
              f".part {i}:\n  extends: .base\n  variables: {{PART: \"{i}\"}}\n"
              f"job {i}:\n  extends: .part {i}\n  script: [\"make part{i}\"]\n"
              "  rules:\n    - if: $CI_COMMIT_BRANCH\n")
