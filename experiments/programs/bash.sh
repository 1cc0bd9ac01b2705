# Subshells, pipelines, associative arrays, strings that grow, recursion.
for i in $(seq 300); do (echo $((i * i)) & wait); done | sort -n | tail -3
declare -A words
for i in $(seq 20000); do words[key$i]=$i; done
for i in $(seq 2 2 20000); do unset "words[key$i]"; done
echo "${#words[@]} words"
text=
for i in $(seq 20000); do text+=$i; done
echo "${#text} characters, $(printf %s "$text" | cksum)"
down() { (($1 == 0)) || down $(($1 - 1)); }
down 1000 && echo "1000 calls deep"
