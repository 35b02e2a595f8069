// Package walkthrough has only tests: the steps of five articles about Services, done as their readers do them, on real
// containers and with the real kubectl. A step is named as in "A2": article A, step 2.
//
// Every step runs on the YAML of ../../examples. Where the articles are at hand ($MINATO_ARTICLES) it also runs on theirs,
// and with the very commands that they type. $MINATO_IP_FAMILY=dual has every instance be one of both IP families, in
// which nothing of the articles may differ (make test-walkthrough-dual). With ipv6 there is no IPv4 in any (make
// test-walkthrough-ipv6): a test whose addresses are the subject, or the article's, is skipped and says so.
package walkthrough
