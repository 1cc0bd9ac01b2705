# History, repacking, a clone, a merge and a full check.
export GIT_AUTHOR_DATE="2020-01-01T00:00:00Z" GIT_COMMITTER_DATE="2020-01-01T00:00:00Z"
export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
git init -q -b main one && cd one
for i in $(seq 60); do
    seq "$i" $((i * 50)) >"file$((i % 7))" && git add . && git commit -qm "commit $i"
done
git checkout -qb side HEAD~20 && seq 9 >side && git add . && git commit -qm side
git checkout -q main && git merge -q --no-edit side
git gc -q --aggressive --prune=now
git clone -q --no-local . ../two && cd ../two
git fsck --strict --full && git log --format='%H %s' | cksum && git blame file3 | cksum && git rev-parse HEAD
